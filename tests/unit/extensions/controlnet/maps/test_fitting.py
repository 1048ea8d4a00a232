"""Maps at the size of the drawn picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.engine.control.unit import Pixels
from sdapi.extensions.controlnet.maps.fitting import Fit, fit, pixel_perfect, resize_map
from sdapi.extensions.controlnet.maps.line_maps import is_thin, thinned


def photo(width: int, height: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), np.uint8)


def lines(side: int) -> Pixels:
    map_ = np.zeros((side, side, 3), np.uint8)
    map_[side // 3] = map_[:, side // 4] = 255
    return map_


@given(
    how=st.sampled_from(list(Fit)),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    channels=st.sampled_from([3, 4]),
    target=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_every_map_gets_the_size(
    how: Fit, width: int, height: int, channels: int, target: tuple[int, int]
):
    size = target[0] * 8, target[1] * 8
    fitted = fit(photo(width, height, channels), how, size)
    assert fitted.shape == (size[1], size[0], channels)
    assert fitted.dtype == np.uint8
    if channels == 4 and (width, height) != size:
        assert set(np.unique(fitted[:, :, 3])) <= {0, 255}


def test_a_map_of_the_right_size_stays():
    map_ = photo(64, 32)
    for how in Fit:
        assert np.array_equal(fit(map_, how, (64, 32)), map_)


def test_covering_cuts_both_sides_and_filling_draws_the_border_out():
    map_ = np.zeros((32, 64, 3), np.uint8)
    map_[:, :16], map_[:, 48:] = 90, 200
    covered = fit(map_, Fit.COVER, (32, 32))
    assert not covered.any()
    map_[0], map_[-1] = 50, 50
    filled = fit(map_, Fit.CONTAIN, (64, 64))
    assert (filled[:16] == 50).all()
    assert np.array_equal(filled[16:48], map_)


def test_what_is_added_around_an_inpainting_picture_is_masked():
    filled = fit(photo(64, 32, 4), Fit.CONTAIN, (64, 64))
    assert (filled[:16, :, 3] == 255).all()


def test_a_segmentation_keeps_its_colours():
    colours = np.array([[10, 20, 30], [200, 0, 90], [0, 250, 120]], np.uint8)
    map_ = colours[np.random.default_rng(1).integers(0, 3, (40, 40))]
    for size in ((64, 64), (24, 24)):
        found = np.unique(resize_map(map_, size).reshape(-1, 3), axis=0)
        assert {tuple(each) for each in found} <= {tuple(each) for each in colours}


@pytest.mark.parametrize("side", [96, 128, 40])
def test_thin_lines_stay_thin_and_black_and_white(side: int):
    resized = resize_map(lines(64), (side, side))
    assert set(np.unique(resized)) == {0, 255}
    # A line across, and one down.
    column, row = resized[:, side // 2, 0], resized[side // 2, :, 0]
    assert (column > 0).sum() == (row > 0).sum() == 1


def test_thin_lines_are_told_from_areas():
    area = np.zeros((64, 64, 3), np.uint8)
    area[20:50, 20:50] = 255
    assert is_thin(lines(64))
    assert not is_thin(area)


def test_thinning_an_area_leaves_a_line():
    bar = np.zeros((40, 40), np.uint8)
    bar[15:20, 5:35] = 255
    thin = thinned(bar, prunes=False)
    # Forked where the bar had corners.
    assert ((thin > 0).sum(axis=0)[8:32] == 1).all()
    assert (thin > 0).sum() < 45


@pytest.mark.parametrize(
    ("how", "expected"), [(Fit.COVER, 256), (Fit.STRETCH, 256), (Fit.CONTAIN, 128)]
)
def test_a_pixel_perfect_resolution_is_that_of_the_shorter_side(how: Fit, expected: int):
    assert pixel_perfect(photo(64, 32), how, (256, 256)) == expected
