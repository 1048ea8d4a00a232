"""Soft inpainting's blend and mask, against formulas written out for one cell."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdapi.engine.jobs.init_images import SoftInpainting
from sdapi.engine.sampling.denoising.soft_inpainting import (
    SoftBlend,
    composite_masks,
    percentile_mean,
)

SETTINGS = SoftInpainting()


def latents(seed: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def blend(repaint: float = 0.5, **settings: float) -> SoftBlend:
    return SoftBlend(latents(1), torch.full((8, 8), repaint), SoftInpainting(**settings))


@pytest.mark.parametrize("repaint", [0.0, 1.0])
def test_black_keeps_the_picture_and_white_the_prediction(repaint: float):
    soft, new = blend(repaint), latents(2)
    assert torch.allclose(soft.during(new, 3.0), new if repaint else soft.init, rtol=1e-4)


def test_blending_keeps_the_magnitude_that_the_contrast_says():
    soft, new, sigma = blend(0.3, contrast_boost=3.0), latents(2), 2.0
    share = 0.3 ** (sigma**1.0 * 0.5)
    a, b = soft.init[0, :, 4, 5].double(), new[0, :, 4, 5].double()
    mixed = a * (1 - share) + b * share
    wanted = (a.norm() ** 3 * (1 - share) + b.norm() ** 3 * share) ** (1 / 3)
    expected = mixed * wanted / (mixed.norm() + 1e-5)
    assert torch.allclose(soft.during(new, sigma)[0, :, 4, 5].double(), expected, rtol=1e-5)


def test_more_noise_keeps_more_of_the_picture():
    soft, new = blend(0.5), latents(2)
    distances = [float((soft.during(new, s) - soft.init).norm()) for s in (0.1, 1.0, 10.0)]
    assert distances == sorted(distances, reverse=True)


def test_noise_levels_beyond_floats_are_no_error():
    soft = blend(0.5, schedule_bias=100.0)
    assert torch.allclose(soft.during(latents(2), 1e6), soft.init, rtol=1e-4)


def test_sampled_latents_are_left_as_they_are_at_the_end():
    new = latents(2)
    assert blend(0.0).after(new) is new


def test_every_picture_of_a_batch_has_its_own_mask():
    same, other = blend(1.0).init, latents(9) * 5
    masks = composite_masks(blend(1.0), torch.cat([same, other]))
    assert [mask.size for mask in masks] == [(8, 8), (8, 8)]
    assert masks[0].getextrema() == (0, 0)
    assert masks[1].getextrema()[0] > 200


@pytest.mark.parametrize(
    "settings",
    [
        {"difference_threshold": 0.0},
        {"difference_contrast": 0.0},
        {"preservation_strength": 0.0},
        {"mask_influence": 1.0, "preservation_strength": 100.0},
    ],
)
def test_settings_at_their_ends_make_a_mask(settings: dict[str, float]):
    (mask,) = composite_masks(blend(0.5, **settings), latents(5))
    assert mask.size == (8, 8)


def test_filter_of_equal_values_is_that_value():
    assert np.allclose(percentile_mean(np.full((9, 7), 3.25), 0.25, 0.75), 3.25)


@given(st.integers(1, 9), st.integers(1, 150), st.integers(0, 1000))
def test_filter_stays_between_the_smallest_and_the_largest(width: int, height: int, seed: int):
    values = np.random.default_rng(seed).random((height, width))
    for low, high in ((0.9, 1.0), (0.25, 0.75), (0.0, 1.0)):
        filtered = percentile_mean(values, low, high)
        assert filtered.shape == values.shape
        assert filtered.min() >= values.min() - 1e-9
        assert filtered.max() <= values.max() + 1e-9


def test_filter_of_the_top_percentiles_widens_what_is_large():
    values = np.zeros((9, 9))
    values[4, 4] = 1.0
    filtered = percentile_mean(values, 0.9, 1.0)
    assert filtered[4, 5] > 0.1
    assert filtered[0, 0] == 0


def test_filter_of_many_rows_does_not_see_where_they_are_split():
    values = np.random.default_rng(3).random((150, 5))
    whole = percentile_mean(values, 0.25, 0.75)
    part = percentile_mean(values[50:80], 0.25, 0.75)
    assert np.allclose(whole[52:78], part[2:28])
