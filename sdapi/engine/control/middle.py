"""The middle of a picture that is far longer than wide."""

from math import ceil
from typing import Final

from sdapi.engine.control.unit import Pixels

#: how many times what will be seen of a side is kept
_MARGIN: Final = 16


def middle(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """What is near to being seen of a picture [H, W, C] that is to cover a size (width, height).

    Scaled as a whole, a long strip would need gigabytes, nearly all of which are cut off then. A
    picture of a usual shape comes back whole.
    """
    height, width = pixels.shape[:2]
    scale = max(size[1] / height, size[0] / width)
    top, left = _cut_off(height, size[1] / scale), _cut_off(width, size[0] / scale)
    return pixels[top : height - top, left : width - left]


def _cut_off(side: int, seen: float) -> int:
    """The pixels that go at either end, so that the middle stays where it was."""
    return max(side - ceil(_MARGIN * seen), 0) // 2
