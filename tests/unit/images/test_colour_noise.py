"""Noise in the colours of a picture; figures from webui-scripts 22."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdapi.images.colour_noise import fill_with_noise


def filled(golden: Path, *, exponent: float, colour_variation: float) -> np.ndarray:
    canvas, mask = Image.new("RGB", (192, 128)), Image.new("RGB", (192, 128), "white")
    with Image.open(golden / "inputs" / "a128.png") as picture:
        canvas.paste(picture.convert("RGB"), (64, 0))
    ImageDraw.Draw(mask).rectangle((72, 0, 191, 127), fill="black")
    return np.asarray(
        fill_with_noise(canvas, mask, exponent=exponent, colour_variation=colour_variation)
    )


@pytest.mark.parametrize(
    ("exponent", "colour_variation", "expected"),
    [
        (1, 0.05, [[29, 249, 213], [15, 28, 239], [135, 176, 133], [227, 89, 59]]),
        (2, 0.5, [[211, 208, 59], [21, 36, 192], [29, 81, 199], [60, 109, 235]]),
    ],
)
def test_noise_is_the_reference_s(
    golden: Path, exponent: float, colour_variation: float, expected: list[list[int]]
):
    pixels = filled(golden, exponent=exponent, colour_variation=colour_variation)
    places = [(0, 0), (10, 5), (64, 40), (127, 71)]
    assert [pixels[place].tolist() for place in places] == expected
    means = pixels[:, :72].mean(axis=(0, 1))
    assert means == pytest.approx([133.95, 105.08, 119.99], abs=0.005)


def test_what_the_mask_hides_stays(golden: Path):
    pixels = filled(golden, exponent=1, colour_variation=0.05)
    with Image.open(golden / "inputs" / "a128.png") as picture:
        assert (pixels[:, 72:] == np.asarray(picture.convert("RGB"))[:, 8:]).all()


@pytest.mark.parametrize("colour", ["black", "white"])
def test_a_picture_of_one_colour_makes_noise_of_it(colour: str):
    mask = Image.new("RGB", (16, 16), "black")
    mask.paste("white", (0, 0, 8, 16))
    image = Image.new("RGB", (16, 16), colour)
    made = fill_with_noise(image, mask, exponent=1, colour_variation=0)
    assert made.getcolors() == [(256, image.getpixel((0, 0)))]
