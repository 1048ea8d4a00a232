"""The picture of a face that IP-Adapter is shown. Contract: portrait-pipeline 5.1."""

import numpy as np

from sdapi.portrait.faces.align import eye_angle, level_square
from sdapi.portrait.faces.face import Face, Parser, Pixels
from sdapi.portrait.pixels.masks.regions import Regions
from sdapi.portrait.pixels.masks.shape import LEFT_BROW, RIGHT_BROW, Shape
from sdapi.portrait.pixels.raster import closed

_SIDE = 512


def adapter_face(rgb: Pixels, face: Face, parser: Parser | None, margin: float) -> Pixels:
    """The face alone on white, its eyes level, nothing above the brows, 512 x 512.

    `margin` grows the square around the face. Raises FaceError without landmarks.
    """
    shape = Shape.of(face, rgb.shape)
    mask = closed(Regions.of(rgb, face, parser).face, shape.fw / 20)
    alone = np.where(mask[..., None] > 0.5, rgb, np.uint8(255))
    inside = np.argwhere(mask > 0.5)
    if not len(inside):
        return np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    low, high = inside.min(axis=0), inside.max(axis=0)
    side = margin * float((high - low).max() + 1)
    middle = ((low + high) / 2)[::-1].tolist()
    crop = level_square(
        np.ascontiguousarray(alone), (middle[0], middle[1]), side, eye_angle(face.eyes), _SIDE
    )
    brows = np.concatenate([shape.points[LEFT_BROW], shape.points[RIGHT_BROW]])
    moved = brows @ crop.to_crop[:, :2].T + crop.to_crop[:, 2]
    picture = crop.rgb.copy()
    picture[: max(int(moved[:, 1].min()), 0)] = 255
    outside = level_square(
        np.full_like(rgb, 255), (middle[0], middle[1]), side, eye_angle(face.eyes), _SIDE
    )
    return np.where(outside.rgb < 128, np.uint8(255), picture)
