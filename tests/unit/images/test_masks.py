"""Masks against the recorded boxes, and the arithmetic of boxes at large."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdapi.images.masks import (
    Box,
    blur_mask,
    invert_mask,
    kept_part,
    lay_over,
    mask_from,
    masked_box,
    masked_part,
    put_back,
    strengthen,
    widen_to_aspect,
)

GOLDEN = Path(__file__).parents[2] / "golden"
RECORDED = json.loads((GOLDEN / "vectors" / "masking.json").read_text())
SIDES = st.integers(1, 4000)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, tuple[int, int]]:
    """A box, and the size of the picture it lies in."""
    width, height = draw(SIDES), draw(SIDES)
    left, upper = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    right, lower = draw(st.integers(left + 1, width)), draw(st.integers(upper + 1, height))
    return Box(left, upper, right, lower), (width, height)


@pytest.mark.parametrize("key", RECORDED)
def test_boxes_equal_the_recorded(key: str):
    name, padding, *aspect = key.split("|")
    with Image.open(GOLDEN / "inputs" / f"{name}.png") as image:
        mask = image.convert("L")
    box = masked_box(mask, int(padding))
    if aspect and box is not None:
        width, height = aspect[0].removeprefix("expand").split("x")
        box = widen_to_aspect(box, (int(width), int(height)), mask.size)
    assert (None if box is None else list(box)) == RECORDED[key]


@given(boxes(), SIDES, SIDES)
def test_widened_box_holds_the_old_one_within_the_picture(
    place: tuple[Box, tuple[int, int]], width: int, height: int
):
    box, bounds = place
    wide = widen_to_aspect(box, (width, height), bounds)
    assert 0 <= wide.left <= box.left < box.right <= wide.right <= bounds[0]
    assert 0 <= wide.upper <= box.upper < box.lower <= wide.lower <= bounds[1]


@given(boxes(), SIDES, SIDES)
def test_widened_box_has_the_aspect_ratio_unless_the_picture_ends(
    place: tuple[Box, tuple[int, int]], width: int, height: int
):
    box, bounds = place
    wide = widen_to_aspect(box, (width, height), bounds)
    wanted_width = max(box.size[0], int(box.size[1] * (width / height)))
    wanted_height = max(box.size[1], int(box.size[0] / (width / height)))
    assert abs(wide.size[0] - min(wanted_width, bounds[0])) <= 1
    assert abs(wide.size[1] - min(wanted_height, bounds[1])) <= 1


@given(boxes(), st.integers(0, 10**12))
def test_padded_box_stays_within_the_picture(place: tuple[Box, tuple[int, int]], padding: int):
    (left, upper, _, _), bounds = place
    # Small, so that the pictures are: the arithmetic does not know the scale.
    mask = Image.new("L", (bounds[0] % 64 + 1, bounds[1] % 64 + 1))
    mask.paste(255, (left % mask.width, upper % mask.height, *mask.size))
    box = masked_box(mask, padding)
    assert box is not None
    assert min(box) >= 0
    assert box.right <= mask.width
    assert box.lower <= mask.height


def test_black_mask_has_no_box():
    assert masked_box(Image.new("L", (8, 8)), 4) is None


def test_alpha_is_the_mask_where_there_is_any_and_brightness_else():
    image = Image.new("RGBA", (3, 1), (255, 255, 255, 255))
    assert mask_from(image, rounds=True).getpixel((0, 0)) == 255
    for x, alpha in enumerate((0, 128, 129)):
        image.putpixel((x, 0), (255, 255, 255, alpha))
    assert list(mask_from(image, rounds=True).tobytes()) == [0, 0, 255]
    assert list(mask_from(image, rounds=False).tobytes()) == [0, 128, 129]


def test_brightness_is_not_rounded():
    assert mask_from(Image.new("RGB", (1, 1), (90, 90, 90)), rounds=True).tobytes() == b"\x5a"


def test_each_axis_is_blurred_by_itself():
    mask = Image.new("L", (41, 41))
    mask.putpixel((20, 20), 255)
    along_x = np.asarray(blur_mask(mask, 3, 0))
    assert (along_x[20] > 0).sum() > 10
    assert (along_x[:, 20] > 0).sum() == 1
    both = np.asarray(blur_mask(Image.new("L", (41, 41), 255), 3, 2))
    assert both.min() == 255


@pytest.mark.parametrize("sigma", [0, -3])
def test_blur_of_nothing_or_less_changes_nothing(sigma: int):
    mask = Image.effect_noise((16, 16), 50)
    assert blur_mask(mask, sigma, sigma).tobytes() == mask.tobytes()


def test_strengthened_mask_hides_half_covered_pixels_wholly():
    levels = Image.frombytes("L", (4, 1), bytes((0, 64, 128, 255)))
    assert list(strengthen(levels).tobytes()) == [0, 128, 255, 255]


def test_kept_and_masked_parts_are_opposites():
    picture, mask = Image.new("RGB", (2, 1), (10, 200, 30)), Image.new("L", (2, 1))
    mask.putpixel((0, 0), 255)
    kept = kept_part(picture, mask).convert("RGBA")
    drawn = masked_part(picture, mask)
    assert [kept.getpixel((x, 0))[3] for x in (0, 1)] == [0, 255]
    assert [drawn.getpixel((x, 0))[3] for x in (0, 1)] == [255, 0]
    assert kept.getpixel((1, 0)) == drawn.getpixel((0, 0)) == (10, 200, 30, 255)
    assert invert_mask(mask).getpixel((0, 0)) == 0


def test_result_is_put_back_at_its_place_only():
    whole = put_back(Image.new("RGB", (8, 8), "red"), (40, 30), Box(10, 5, 26, 21))
    assert whole.size == (40, 30)
    assert whole.getbbox() == (10, 5, 26, 21)
    original = Image.new("RGB", (40, 30), "blue")
    hidden = Image.new("L", (40, 30))
    hidden.paste(255, (10, 5, 26, 21))
    finished = lay_over(whole, kept_part(original, hidden).convert("RGBA"))
    assert finished.mode == "RGB"
    assert finished.getpixel((12, 8)) == (255, 0, 0)
    assert finished.getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("size", [(6, 20), (20, 6), (20, 20)])
def test_overlay_of_another_size_leaves_the_size_of_the_picture(size: tuple[int, int]):
    drawn = lay_over(Image.new("RGB", (10, 10), "red"), Image.new("RGBA", size, "blue"))
    assert drawn.size == (10, 10)
    assert drawn.getpixel((5, 5)) == (0, 0, 255)
