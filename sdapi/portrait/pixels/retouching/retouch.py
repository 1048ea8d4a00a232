"""Skin made smoother and brighter: blotches go, pores stay.

He's guided filter (2010), the picture its own guide, on the skin alone; contract: portrait-pipeline
8.5.
"""

from typing import Final

import numpy as np

from sdapi.portrait.faces.face import Face, Mask, Pixels
from sdapi.portrait.pixels.frame import around
from sdapi.portrait.pixels.masks.shape import Shape
from sdapi.portrait.pixels.masks.skin import skin_mask
from sdapi.portrait.pixels.raster import (
    Floats,
    Values,
    blurred,
    box_blurred,
    from_lab,
    mixed,
    to_lab,
)

_STRENGTH: Final = 0.7
_PORES: Final = 0.35
_EPSILON: Final = 0.003
_BRIGHTER: Final = 0.036
#: the part of a picture that is looked at, in boxes of the face: all of its skin and a margin
_CROP: Final = 1.8


def retouched(rgb: Pixels, face: Face) -> Pixels:
    """The picture with the skin of one face retouched; raises FaceError without landmarks."""
    part = around(rgb, face.box, _CROP)
    return part.laid_in(rgb, _retouched_part(part.cut(rgb), part.into(face)))


def _retouched_part(rgb: Pixels, face: Face) -> Pixels:
    fw = Shape.of(face, rgb.shape).fw
    mask = skin_mask(rgb, face)
    lab = to_lab(rgb)
    light = lab[..., 0] / 100.0
    side = 2 * max(round(0.03 * fw), 1) + 1
    base = guided(light, light, side, _EPSILON)
    smooth = base + _PORES * (light - blurred(light, 0.003 * fw))
    wanted = lab.copy()
    wanted[..., 0] = smooth * 100.0
    for channel in (1, 2):
        wanted[..., channel] = guided(lab[..., channel] / 100.0, light, side, _EPSILON) * 100.0
    wanted = lab + _STRENGTH * (wanted - lab)
    wanted[..., 0] += _BRIGHTER * (100.0 - wanted[..., 0])
    return mixed(rgb, from_lab(wanted), _inside(mask, fw))


def guided(values: Values, guide: Values, side: int, epsilon: float) -> Floats:
    """The guided filter: smooth where the guide is, sharp where the guide has edges."""
    mean, mean_guide = box_blurred(values, side), box_blurred(guide, side)
    variance = box_blurred(guide * guide, side) - mean_guide * mean_guide
    covariance = box_blurred(guide * values, side) - mean_guide * mean
    slope = covariance / (np.maximum(variance, 0.0) + epsilon)
    offset = mean - slope * mean_guide
    return np.asarray(box_blurred(slope, side) * guide + box_blurred(offset, side), np.float32)


def _inside(mask: Mask, fw: float) -> Mask:
    """The mask with a soft edge that does not reach beyond it."""
    return blurred(mask, 0.015 * fw) * mask
