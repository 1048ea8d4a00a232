"""Soft inpainting: blending that follows the noise level, and a mask from what has changed.

Contract: webui-scripts 12, whose symbols the comments use.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sdapi.engine.jobs.init_images import SoftInpainting

_SMALL: Final = 1e-5
#: sides of the filter's window, in latent cells, and its reach
_REACH: Final = 2
_FALLOFF: Final = 1.5**2
#: percentiles that the difference is filtered to, one pass each
_PASSES: Final = ((0.9, 1.0), (0.25, 0.75))
#: latent rows filtered at a time
_ROWS: Final = 64

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SoftBlend:
    """Mixes by magnitude as well as direction, the less of the prediction the higher the noise."""

    init: Tensor
    #: 1 where the picture is drawn anew, shades between [h, w]
    repaint: Tensor
    settings: SoftInpainting

    def during(self, latent: Tensor, sigma: float) -> Tensor:
        """Latents [B, C, h, w] mixed with the init latent for one noise level."""
        share = self.repaint.double() ** _exponent(sigma, self.settings)  # τ
        kept, new, contrast = self.init.double(), latent.double(), self.settings.contrast_boost
        mixed = kept * (1 - share) + new * share
        magnitude = mixed.norm(dim=1, keepdim=True) + _SMALL
        wanted = (
            kept.norm(dim=1, keepdim=True) ** contrast * (1 - share)
            + new.norm(dim=1, keepdim=True) ** contrast * share
        ) ** (1 / contrast)
        return (mixed * (wanted / magnitude)).to(latent.dtype)

    def after(self, latent: Tensor) -> Tensor:
        """The sampled latents are decoded as they are."""
        return latent


def _exponent(sigma: float, settings: SoftInpainting) -> float:
    try:
        return sigma**settings.schedule_bias * settings.preservation_strength
    except OverflowError:
        return math.inf


def composite_masks(blend: SoftBlend, sampled: Tensor) -> list[Image.Image]:
    """How far each of the sampled latents [B, C, h, w] covers the init picture; grey, one pixel
    per latent cell, white where the picture is new."""
    repaint = blend.repaint.double().cpu().numpy()
    init = blend.init.expand_as(sampled)
    distances = (sampled.double() - init.double()).norm(dim=1).cpu().numpy()
    return [_composite_mask(repaint, distance, blend.settings) for distance in distances]


def _composite_mask(repaint: Floats, distance: Floats, settings: SoftInpainting) -> Image.Image:
    half = _half_distance(repaint, settings)
    for low, high in _PASSES:
        distance = percentile_mean(distance, low, high)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # Where nothing may differ at all, a difference of nothing keeps the picture.
        ratio = np.where(distance == 0, 0.0, distance / half)
        kept = 1 / (1 + ratio**settings.difference_contrast)  # r
    eased = kept**3 * (kept * (kept * 6 - 15) + 10)  # s, "smootherstep"
    return Image.fromarray((255 * (1 - eased)).astype(np.uint8))


def _half_distance(repaint: Floats, settings: SoftInpainting) -> Floats:
    """The difference at which the new picture covers half (h)."""
    kept = 1 - repaint.clip(0, 1) ** (settings.preservation_strength / 2)
    influence = settings.mask_influence
    kept = 0.5 * (1 - influence) + kept * influence
    return settings.difference_threshold * kept / (1.00001 - kept)


def _kernel() -> Floats:
    """Weights around a cell that fall off to nothing before the window's corners [5, 5]."""
    offsets = np.arange(-_REACH, _REACH + 1)
    squares = offsets[:, None] ** 2 + offsets[None, :] ** 2
    edge = math.exp(-((_REACH + 1) ** 2) / _FALLOFF)
    return np.maximum((np.exp(-squares / _FALLOFF) - edge) / (1 - edge), 0.0)


def percentile_mean(values: Floats, low: float, high: float) -> Floats:
    """Around every cell of [h, w], the weighted mean of the values between two percentiles.

    Weights fall off with the distance. The stretch between the percentiles is at least one weight
    wide, around its centre.
    """
    padded = np.pad(values, _REACH)
    inside = np.pad(np.ones_like(values), _REACH)
    filtered = np.empty_like(values)
    for start in range(0, len(values), _ROWS):
        rows = slice(start, start + _ROWS + 2 * _REACH)
        filtered[start : start + _ROWS] = _filter_rows(padded[rows], inside[rows], low, high)
    return filtered


def _filter_rows(padded: Floats, inside: Floats, low: float, high: float) -> Floats:
    weights = _windows(inside) * _kernel().ravel()
    values = _windows(padded)
    order = values.argsort(axis=-1, kind="stable")
    values = np.take_along_axis(values, order, axis=-1)
    weights = np.take_along_axis(weights, order, axis=-1)
    tops = weights.cumsum(axis=-1)
    first, last = _stretch(tops[..., -1:], low, high)
    overlap = (np.minimum(tops, last) - np.maximum(tops - weights, first)).clip(min=0)
    total = overlap.sum(axis=-1)
    mean = (values * overlap).sum(axis=-1) / np.where(total > 0, total, 1)
    return np.where(total > 0, mean, 0.0)


def _windows(padded: Floats) -> Floats:
    """The 25 cells around every cell [h, w, 25]."""
    side = 2 * _REACH + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    return windows.reshape(*windows.shape[:2], side * side)


def _stretch(total: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    first, last = total * low, total * high
    centre, narrow = (first + last) / 2, last - first < 1
    first, last = np.where(narrow, centre - 0.5, first), np.where(narrow, centre + 0.5, last)
    above = (last - total).clip(min=0)
    first, last = first - above, last - above
    below = (-first).clip(min=0)
    return first + below, last + below
