"""The part of a template that is worked on, the size it is worked on at, and the way back.

Contract: portrait-pipeline 3.2 and 3.11. The crop is the face's box three times as large, brought
to the checkpoint's native size. Only what was changed returns, with a soft edge: the rest of the
crop keeps the template's own pixels instead of some that were made smaller and larger again.
"""

from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

import numpy as np

from sdapi.portrait.faces.align import move
from sdapi.portrait.faces.face import Box, Face, Mask, Pixels, Points
from sdapi.portrait.pixels.raster import blurred, mixed, resized, resized_mask

_CROP: Final = 3.0
_CROPPED_MULTIPLE, _WHOLE_MULTIPLE = 32, 8
_FEATHER: Final = 8
#: the longer side of a whole template, in native sides; above it nothing would fit a device
LONGEST_SIDE: Final = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle of the template, whole pixels, and the size it is worked on at."""

    left: int
    top: int
    width: int
    height: int
    #: (width, height)
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels worked on for one of the template's, across and down."""
        return self.size[0] / self.width, self.size[1] / self.height

    def cut(self, rgb: Pixels) -> Pixels:
        """The rectangle in its own size."""
        return np.ascontiguousarray(rgb[self._rows, self._columns])

    def cut_mask(self, mask: Mask) -> Mask:
        """The rectangle of a mask of the whole."""
        return np.ascontiguousarray(mask[self._rows, self._columns])

    def laid_in(self, rgb: Pixels, part: Pixels) -> Pixels:
        """The whole with another picture in this rectangle, in its own size."""
        whole = rgb.copy()
        whole[self._rows, self._columns] = part
        return whole

    def laid_in_mask(self, mask: Mask, part: Mask) -> Mask:
        """A mask of the whole with another in this rectangle, in its own size."""
        whole = mask.copy()
        whole[self._rows, self._columns] = part
        return whole

    def work(self, rgb: Pixels) -> Pixels:
        """The rectangle in the size it is worked on at."""
        return resized(self.cut(rgb), self.size)

    def into(self, face: Face) -> Face:
        """A face of the template in this frame's pixels."""
        across, down = self.scale
        return moved(
            face, np.array([[across, 0, -self.left * across], [0, down, -self.top * down]])
        )

    def out_of(self, face: Face) -> Face:
        """A face of this frame's pixels in the template."""
        across, down = self.scale
        return moved(face, np.array([[1 / across, 0, self.left], [0, 1 / down, self.top]]))

    def back(self, template: Pixels, drawn: Pixels, changed: Mask) -> Pixels:
        """The template with what was changed in the drawn picture."""
        size = (self.width, self.height)
        weight = np.clip(resized_mask(changed, size), 0.0, 1.0) * _faded(size)
        return self.laid_in(template, mixed(self.cut(template), resized(drawn, size), weight))

    @property
    def _rows(self) -> slice:
        return slice(self.top, self.top + self.height)

    @property
    def _columns(self) -> slice:
        return slice(self.left, self.left + self.width)


def around(rgb: Pixels, box: Box, factor: float) -> Frame:
    """The part of a picture in a box `factor` times as large as a face's, in its own size."""
    left, top, right, bottom = grown_box(box, factor, (rgb.shape[1], rgb.shape[0]))
    width, height = right - left, bottom - top
    return Frame(left, top, width, height, (width, height))


def cropped(template: tuple[int, int], box: Box, native: int, *, by_area: bool) -> Frame:
    """Around a face's box; `template` is (width, height). SDXL goes by area, others by side."""
    left, top, right, bottom = grown_box(box, _CROP, template)
    width, height = right - left, bottom - top
    scale = native / (sqrt(width * height) if by_area else min(width, height))
    step = _CROPPED_MULTIPLE
    size = tuple(max(int(side * scale / step + 1e-6), 1) * step for side in (width, height))
    # cut, rather than squeezed, to the sides that multiples leave
    fit = min(width / size[0], height / size[1])
    kept = (max(round(size[0] * fit), 1), max(round(size[1] * fit), 1))
    shift = ((width - kept[0]) // 2, (height - kept[1]) // 2)
    return Frame(left + shift[0], top + shift[1], *kept, (size[0], size[1]))


def uncropped(template: tuple[int, int], native: int, *, by_area: bool) -> Frame:
    """The whole template, (width, height)."""
    width, height = template
    scale = native / (sqrt(width * height) if by_area else min(width, height))
    scale = min(scale, LONGEST_SIDE * native / max(width, height))
    step = _WHOLE_MULTIPLE
    size = tuple(max(round(side * scale / step), 1) * step for side in template)
    return Frame(0, 0, width, height, (size[0], size[1]))


def grown_box(box: Box, factor: float, template: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box, `factor` times as large about its centre, in whole pixels of (width, height)."""
    left, top, right, bottom = box
    grow_x, grow_y = (factor - 1) / 2 * (right - left), (factor - 1) / 2 * (bottom - top)
    width, height = template
    first = (max(round(left - grow_x), 0), max(round(top - grow_y), 0))
    last = (min(round(right + grow_x), width), min(round(bottom + grow_y), height))
    return (
        min(first[0], width - 1),
        min(first[1], height - 1),
        max(last[0], min(first[0], width - 1) + 1),
        max(last[1], min(first[1], height - 1) + 1),
    )


def moved(face: Face, transform: np.ndarray) -> Face:
    """A face through an affine transform [2, 3] without a turn."""

    def through(points: Points | None) -> Points | None:
        return None if points is None else move(points, transform)

    corners = move(np.array(face.box, np.float32).reshape(2, 2), transform).ravel().tolist()
    return replace(
        face,
        box=(corners[0], corners[1], corners[2], corners[3]),
        eyes=move(face.eyes, transform),
        points68=through(face.points68),
        mesh=through(face.mesh),
    )


def _faded(size: tuple[int, int]) -> Mask:
    """1 inside a rectangle (width, height), falling to 0 at its border."""
    edge = min(_FEATHER, *(side // 8 for side in size))
    inside = np.zeros((size[1], size[0]), np.float32)
    inside[edge : size[1] - edge, edge : size[0] - edge] = 1.0
    faded = blurred(inside, edge / 3)
    faded[[0, -1], :] = 0.0
    faded[:, [0, -1]] = 0.0
    return faded
