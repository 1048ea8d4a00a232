from pathlib import Path

import numpy as np
from PIL import Image

from sdapi.images.fill import fill_masked

GOLDEN = Path(__file__).parents[2] / "golden"


def test_filling_equals_the_recorded():
    with (
        Image.open(GOLDEN / "inputs" / "a128.png") as image,
        Image.open(GOLDEN / "inputs" / "mask128.png") as mask,
        Image.open(GOLDEN / "vectors" / "images" / "fill_a128.png") as recorded,
    ):
        filled = fill_masked(image.convert("RGB"), mask.convert("L"))
        assert np.array_equal(np.asarray(filled), np.asarray(recorded.convert("RGB")))


def test_filling_takes_nothing_from_under_the_mask():
    mask = Image.new("L", (48, 48))
    mask.paste(255, (16, 16, 32, 32))
    pictures = [Image.new("RGB", (48, 48), "green") for _ in range(2)]
    pictures[1].paste((255, 0, 0), (16, 16, 32, 32))
    one, other = (fill_masked(picture, mask) for picture in pictures)
    assert one.tobytes() == other.tobytes()
    red, green, blue = one.getpixel((24, 24))
    assert (red, blue) == (0, 0)
    assert 115 <= green <= 128


def test_wholly_masked_picture_is_filled_with_black():
    filled = fill_masked(Image.new("RGB", (8, 8), "red"), Image.new("L", (8, 8), 255))
    assert filled.getextrema() == ((0, 0), (0, 0), (0, 0))
