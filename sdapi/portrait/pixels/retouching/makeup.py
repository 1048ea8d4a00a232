"""The template's make-up on the person: lips, eye shadow, blush and brows.

Regional statistics in LAB, relative to each face's own skin; contract: portrait-pipeline 8.7. No
lashes, no glitter.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from sdapi.portrait.faces.face import Face, FaceError, Mask, Pixels, Points
from sdapi.portrait.faces.pose import LEFT_EYE, RIGHT_EYE
from sdapi.portrait.pixels.masks.shape import LEFT_BROW, RIGHT_BROW, Shape
from sdapi.portrait.pixels.masks.skin import skin_mask
from sdapi.portrait.pixels.raster import Floats, blurred, from_lab, mixed, to_lab

_SPREAD: Final = (0.7, 1.4)
_LEAST_PIXELS: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class _Region:
    """Where make-up sits, how soft its edge is, and how much of the skins' difference it takes."""

    mask: Floats
    blur: float
    #: shares of the difference of skin tones, for L and for a, b
    skin: tuple[float, float] = (1.0, 1.0)


def made_up(rgb: Pixels, face: Face, model: Pixels, model_face: Face, ratio: float) -> Pixels:
    """`rgb` with the make-up of `model`, 0 none to 1 full.

    Raises FaceError without landmarks, and where either face shows no skin to compare.
    """
    if ratio <= 0.0:
        return rgb
    ours, theirs = Shape.of(face, rgb.shape), Shape.of(model_face, model.shape)
    lab, wanted = to_lab(rgb), to_lab(model)
    tone = _mean(lab, skin_mask(rgb, face)) - _mean(wanted, skin_mask(model, model_face))
    for own, other in zip(_regions(ours), _regions(theirs), strict=True):
        lab = _taken_over(lab, own, wanted, other.mask, tone, ratio)
    changed = np.maximum.reduce([_soft(region) for region in _regions(ours)])
    return mixed(rgb, from_lab(lab), (changed > 0.0).astype(np.float32))


def _taken_over(
    lab: Floats, region: _Region, wanted: Floats, where: Mask, tone: Floats, ratio: float
) -> Floats:
    inside, there = region.mask > 0.5, where > 0.5
    if min(inside.sum(), there.sum()) < _LEAST_PIXELS:
        return lab
    changed = lab.copy()
    weight = _soft(region) * ratio
    for channel in range(3):
        have, want = lab[..., channel][inside], wanted[..., channel][there]
        share = region.skin[0 if channel == 0 else 1]
        spread = np.clip(want.std() / max(float(have.std()), 1e-3), *_SPREAD)
        aim = want.mean() + share * float(tone[channel])
        new = (lab[..., channel] - have.mean()) * spread + aim
        changed[..., channel] += (new - lab[..., channel]) * weight
    return changed


def _regions(shape: Shape) -> list[_Region]:
    fw, p = shape.fw, shape.points
    lips = shape.lips() * (1.0 - shape.inner_mouth())
    shadow = np.zeros(shape.size, np.float32)
    for eye, brow in ((LEFT_EYE, LEFT_BROW), (RIGHT_EYE, RIGHT_BROW)):
        middle = p[eye].mean(axis=0)
        larger = np.asarray((p[eye] - middle) * 1.35 + middle, np.float32)
        lifted = np.asarray(p[brow] - shape.up * (0.03 * fw), np.float32)
        shadow = np.maximum(shadow, shape.hull(np.concatenate([larger[:4], lifted])))
    shadow *= 1.0 - np.maximum(shape.eyes(0.01 * fw), shape.brows(0.035 * fw))
    blush = np.maximum(
        _blush(shape, (p[2] + p[31] + p[41]) / 3), _blush(shape, (p[14] + p[35] + p[46]) / 3)
    )
    return [
        _Region(np.asarray(lips, np.float32), 0.01 * fw, (1.0, 0.3)),
        _Region(shadow, 0.02 * fw),
        _Region(blush, 0.05 * fw),
        _Region(shape.brows(0.035 * fw), 0.01 * fw),
    ]


def _blush(shape: Shape, centre: Points) -> Mask:
    return shape.ellipse(centre, (0.13 * shape.fw, 0.10 * shape.fw))


def _soft(region: _Region) -> Mask:
    return blurred(region.mask, region.blur)


def _mean(lab: Floats, mask: Mask) -> Floats:
    inside = mask > 0.5
    if not inside.any():
        raise FaceError("the face shows no skin that its make-up could be told from")
    return lab[inside].mean(axis=0)
