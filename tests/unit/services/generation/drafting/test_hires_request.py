from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.errors import BadRequest
from sdapi.options import Options
from sdapi.schemas.generation import Txt2ImgRequest
from sdapi.services.generation.drafting.hires_request import (
    HiresSize,
    first_size,
    old_first_pass,
    resized_size,
    scaled_size,
    second_size,
)

sides = st.integers(8, 4096)


def request(**body: Any) -> Txt2ImgRequest:
    return Txt2ImgRequest.model_validate(body)


def test_scale_cuts_fractions_of_a_pixel_off():
    assert scaled_size((127, 129), 1.5) == HiresSize((190, 193))
    assert scaled_size((127, 129), 1.5).picture == (184, 192)


@pytest.mark.parametrize(
    ("first", "target", "size", "surplus"),
    [
        ((128, 128), (256, 0), (256, 256), (0, 0)),
        ((128, 64), (0, 256), (512, 256), (0, 0)),
        ((128, 128), (256, 192), (256, 256), (0, 8)),
        ((128, 128), (192, 256), (256, 256), (8, 0)),
        ((160, 96), (300, 200), (333, 200), (4, 0)),
    ],
)
def test_target_is_covered_and_the_rest_cut(
    first: tuple[int, int], target: tuple[int, int], size: tuple[int, int], surplus: tuple[int, int]
):
    assert resized_size(first, *target) == HiresSize(size, surplus)


@given(st.tuples(sides, sides), st.tuples(sides, sides))
def test_covering_size_has_the_firsts_ratio_and_misses_no_cell(
    first: tuple[int, int], target: tuple[int, int]
):
    found = resized_size(first, *target)
    for side, wanted in zip(found.size, target, strict=True):
        assert side >= wanted - 1
    assert all(
        cells >= 0 or side < wanted
        for cells, side, wanted in zip(found.surplus, found.size, target, strict=True)
    )
    for side, wanted in zip(found.picture, target, strict=True):
        assert abs(side - wanted) <= 8


@given(st.tuples(sides, sides))
def test_old_first_pass_is_about_512_squared_in_whole_64s(target: tuple[int, int]):
    width, height = old_first_pass(target)
    assert width % 64 == height % 64 == 0
    assert width * height >= 512 * 512


def test_legacy_fields_make_the_first_pass():
    options = Options.defaults()
    body = request(width=192, height=192, firstphase_width=128, firstphase_height=128)
    assert first_size(body, options) == (128, 128)
    assert second_size(body, options, (128, 128)).size == (256, 256)


def test_old_option_takes_width_and_height_for_the_target():
    options = Options.defaults().overlay({"use_old_hires_fix_width_height": True})
    body = request(width=256, height=256, enable_hr=True, hr_resize_x=64)
    assert first_size(body, options) == (512, 512)
    assert second_size(body, options, (512, 512)).size == (256, 256)
    assert first_size(request(width=256, height=256), options) == (256, 256)


@pytest.mark.parametrize(
    "body", [{"hr_scale": 0}, {"hr_scale": -1}, {"hr_scale": 1e9}, {"hr_resize_x": -8}]
)
def test_what_is_no_size_is_refused(body: dict[str, Any]):
    with pytest.raises(BadRequest, match=next(iter(body))):
        second_size(request(**body), Options.defaults(), (64, 64))
