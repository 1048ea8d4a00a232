"""How far outpainting extends a picture to each side (contract: webui-scripts 2)."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from sdapi.errors import BadRequest

Side = Literal["left", "right", "up", "down"]
SIDES: Final[tuple[Side, ...]] = ("left", "right", "up", "down")
_STEP: Final = 64
#: what noise and masks of it are made of is held several times over
_MAX_PIXELS: Final = 16_000_000


@dataclass(frozen=True, slots=True)
class Extension:
    """Pixels added to each side, and the size of the whole."""

    left: int
    right: int
    up: int
    down: int
    size: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int], pixels: int, sides: Collection[Side]) -> "Extension":
        """`pixels` on each chosen side, and their share of what lacks to a multiple of 64.

        Raises `BadRequest` where nothing would be added, or too much.
        """
        if pixels < 1:
            raise BadRequest(f"script_args, pixels to expand: {pixels}; it must be at least 1")
        if not sides:
            raise BadRequest(f"script_args, outpainting direction: choose among {list(SIDES)}")
        left, right, width = _along(size[0], pixels, "left" in sides, "right" in sides)
        up, down, height = _along(size[1], pixels, "up" in sides, "down" in sides)
        if width * height > _MAX_PIXELS:
            raise BadRequest(
                f"script_args, pixels to expand: {pixels} makes a picture of {width}x{height}; at "
                f"most {_MAX_PIXELS // 1_000_000} megapixels"
            )
        return cls(left, right, up, down, (width, height))


def _along(size: int, pixels: int, before: bool, after: bool) -> tuple[int, int, int]:
    """What is added before and after along one axis, and the size of the whole."""
    low, high = pixels * before, pixels * after
    whole = math.ceil((size + low + high) / _STEP) * _STEP
    if low:
        low = low * (whole - size) // (low + high)
    if high:
        high = whole - size - low
    return low, high, whole
