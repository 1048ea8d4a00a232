"""The size at which a picture is looked at: its shorter side is the resolution.

Contract: controlnet-api 5.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.errors import BadRequest

#: pixels; a narrow strip becomes long before it is wide
_LARGEST: Final = 32_000_000
_STEP: Final = 64


@dataclass(frozen=True, slots=True)
class WorkingSize:
    """A picture at its working size, on a canvas whose sides are multiples of 64."""

    #: what is over repeats the edge
    canvas: Pixels
    height: int
    width: int

    def cut(self, pixels: Pixels) -> Pixels:
        """A map as large as the canvas, without what is over."""
        return np.ascontiguousarray(pixels[: self.height, : self.width])

    @property
    def picture(self) -> Pixels:
        """The picture alone."""
        return self.cut(self.canvas)


def at_working_size(pixels: Pixels, resolution: float) -> WorkingSize:
    """Scale a picture [H, W, C]; raises `BadRequest` where that makes it too large."""
    height, width = pixels.shape[:2]
    scale = resolution / min(height, width)
    # numpy rounds halves to even, as the reference does
    new_height, new_width = (max(int(np.round(side * scale)), 1) for side in (height, width))
    if new_height * new_width > _LARGEST:
        raise BadRequest(
            f"a preprocessor resolution of {resolution:g} makes the picture of {width}x{height} "
            f"{new_width}x{new_height} pixels large; at most {_LARGEST // 1_000_000} million fit"
        )
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    scaled = cv2.resize(pixels, (new_width, new_height), interpolation=how)
    over = [(0, -side % _STEP) for side in (new_height, new_width)]
    canvas = np.pad(
        np.asarray(scaled, np.uint8).reshape(new_height, new_width, -1), [*over, (0, 0)], "edge"
    )
    return WorkingSize(canvas, new_height, new_width)
