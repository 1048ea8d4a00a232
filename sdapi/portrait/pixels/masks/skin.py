"""Where skin is: a colour learnt from three places of the face that are skin for certain.

Contract: portrait-pipeline 8.3. A Gaussian in (Cr, Cb), gated by lightness, inside an ellipse
around the face, joined to the places it was learnt from; eyes, lips and brows are no skin.
"""

from typing import Final

import cv2
import numpy as np

from sdapi.portrait.faces.face import Face, Mask, Pixels
from sdapi.portrait.pixels.masks.shape import Shape
from sdapi.portrait.pixels.raster import closed, opened

_SEED_RADIUS: Final = 0.07
_LEAST_VARIANCE: Final = 9.0
_LEAST_CHANCE: Final = 0.25
#: lightness, as a share of the seeds': below the first it is shadow or hair, above the second skin
_LUMA_GATE: Final = (0.35, 0.60)
#: half axes of the ellipse, in widths of the jaw and in heights from the chin to the bridge
_ELLIPSE: Final = (0.63, 1.3)


def skin_mask(rgb: Pixels, face: Face) -> Mask:
    """1 on the skin of one face, 0 elsewhere; raises FaceError without landmarks."""
    shape = Shape.of(face, rgb.shape)
    fw = shape.fw
    seeds = _seeds(shape)
    ycc = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb), np.float32)
    found = (_chance(ycc, seeds) > _LEAST_CHANCE).astype(np.float32)
    middle = shape.points[27:31].mean(axis=0) + shape.up * (0.05 * shape.height)
    half = (_ELLIPSE[0] * fw, _ELLIPSE[1] * shape.height)
    found *= shape.ellipse(middle, half)
    found = closed(opened(found, 0.04 * fw), 0.08 * fw)
    found *= 1.0 - shape.eyes(0.035 * fw)
    found *= 1.0 - shape.lips()
    found *= 1.0 - shape.brows(0.035 * fw)
    return _joined_to(found, seeds)


def _seeds(shape: Shape) -> Mask:
    """Both cheeks and the bridge of the nose."""
    p, radius = shape.points, _SEED_RADIUS * shape.fw
    left = (p[1:4].mean(axis=0) + p[31] + p[41]) / 3
    right = (p[13:16].mean(axis=0) + p[35] + p[46]) / 3
    places = (left, right, p[28])
    discs = [shape.ellipse(place, (radius, radius), 0.0) for place in places]
    return np.maximum.reduce(discs)


def _chance(ycc: np.ndarray, seeds: Mask) -> Mask:
    """How much each pixel is like the seeds, 0 to 1."""
    inside = seeds > 0
    if not inside.any():
        return np.zeros(seeds.shape, np.float32)
    samples = ycc[inside]
    mean = samples[:, 1:].mean(axis=0)
    spread = np.cov(samples[:, 1:], rowvar=False) if len(samples) > 2 else np.zeros((2, 2))
    inverse = np.linalg.inv(spread + _LEAST_VARIANCE * np.eye(2))
    red, blue = ycc[..., 1] - mean[0], ycc[..., 2] - mean[1]
    (a, b), (_, c) = inverse.astype(np.float32)
    squared = a * red * red + 2 * b * red * blue + c * blue * blue
    low, high = (share * float(samples[:, 0].mean()) for share in _LUMA_GATE)
    gate = np.clip((ycc[..., 0] - low) / max(high - low, 1e-3), 0.0, 1.0)
    return (np.exp(-squared / 8.0) * gate).astype(np.float32)


def _joined_to(mask: Mask, seeds: Mask) -> Mask:
    """The parts of a mask that hold seeds: fair hair joins in otherwise."""
    count, labels = cv2.connectedComponents((mask > 0.5).astype(np.uint8))
    if count <= 1:
        return np.zeros_like(mask)
    kept = np.unique(labels[(seeds > 0) & (mask > 0.5)])
    return np.isin(labels, kept[kept > 0]).astype(np.float32)
