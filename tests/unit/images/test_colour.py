"""Colour correction, against a recorded pair and by its rules."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdapi.images.colour import blend_luminosity, correct_colours, match_histogram

GOLDEN = Path(__file__).parents[2] / "golden"


def noise(seed: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_values_take_the_distribution_of_others():
    values, wanted = np.arange(256, dtype=np.uint8), np.full(64, 7, dtype=np.uint8)
    assert set(match_histogram(values, wanted)) == {7}
    dark = np.random.default_rng(1).integers(0, 60, 4000).astype(np.uint8)
    matched = match_histogram(np.random.default_rng(2).integers(100, 250, 4000, np.uint8), dark)
    assert np.abs(np.sort(matched).astype(int) - np.sort(dark)).max() <= 2


def test_own_colours_stay_as_they_are():
    pixels = noise(3)
    image = Image.fromarray(pixels)
    changed = np.asarray(correct_colours(image, image)).astype(int) - pixels
    assert np.abs(changed).mean() < 2


def test_brightness_stays_and_colour_changes():
    grey = Image.fromarray(np.repeat(noise(4)[..., :1] // 2 + 64, 3, axis=2))
    red = Image.new("RGB", (32, 32), (150, 90, 80))
    result = correct_colours(grey, red)
    before, after = (np.asarray(i.convert("L")).astype(int) for i in (grey, result))
    assert np.abs(before - after).max() <= 3
    assert np.asarray(result)[..., 0].mean() > np.asarray(result)[..., 2].mean() + 20


@pytest.mark.parametrize("colours", [(255, 0, 0), (0, 0, 0), (255, 255, 255), (3, 250, 90)])
def test_luminosity_blending_of_any_colour_stays_in_range(colours: tuple[int, int, int]):
    base = np.full((32, 32, 3), colours, dtype=np.uint8)
    wanted = noise(5)
    blended = blend_luminosity(base, wanted)
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs(blended @ luma - wanted @ luma).max() <= 2


def test_picture_larger_than_a_stripe_is_done_whole():
    tall = np.tile(noise(6), (40, 1, 1))
    assert np.array_equal(blend_luminosity(tall, tall)[:32], blend_luminosity(tall[:32], tall[:32]))
    assert np.abs(blend_luminosity(tall, tall).astype(int) - tall).max() <= 1
