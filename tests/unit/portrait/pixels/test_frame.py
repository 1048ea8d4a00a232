"""The part of a template that is worked on, and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.portrait.pixels.frame import cropped, grown_box, uncropped


def test_a_crop_is_three_boxes_wide_at_the_native_size():
    frame = cropped((1000, 1000), (400.0, 400.0, 500.0, 500.0), 512, by_area=False)
    assert (frame.left, frame.top, frame.width, frame.height) == (300, 300, 300, 300)
    assert frame.size == (512, 512)


def test_a_crop_at_the_border_is_clipped_and_keeps_its_proportions():
    frame = cropped((1000, 800), (0.0, 300.0, 300.0, 600.0), 512, by_area=False)
    assert frame.left == 0
    assert frame.left + frame.width <= 1000
    assert frame.top + frame.height <= 800
    across, down = frame.scale
    assert across == pytest.approx(down, rel=0.01)


def test_sdxl_counts_the_area():
    frame = cropped((3000, 3000), (1000.0, 500.0, 1200.0, 700.0), 1024, by_area=True)
    assert frame.size == (1024, 1024)
    wide = uncropped((2000, 500), 1024, by_area=True)
    assert wide.size[0] * wide.size[1] == pytest.approx(1024 * 1024, rel=0.05)


def test_a_whole_template_never_grows_beyond_three_native_sides():
    frame = uncropped((5000, 100), 512, by_area=False)
    assert max(frame.size) <= 3 * 512
    assert frame.size[1] >= 8


sizes = st.integers(8, 3000)


@given(sizes, sizes, st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1.2), st.booleans())
def test_any_box_gives_a_frame_inside_the_template(
    width: int, height: int, x: float, y: float, share: float, by_area: bool
):
    side = max(share * min(width, height), 1.0)
    box = (x * width - side / 2, y * height - side / 2, x * width + side / 2, y * height + side / 2)
    frame = cropped((width, height), box, 256, by_area=by_area)
    assert frame.left >= 0
    assert frame.top >= 0
    assert frame.width >= 1
    assert frame.height >= 1
    assert frame.left + frame.width <= width
    assert frame.top + frame.height <= height
    assert all(side % 32 == 0 and side >= 32 for side in frame.size)
    left, top, right, bottom = grown_box(box, 1.0, (width, height))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_what_was_not_changed_returns_to_the_bit():
    rng = np.random.default_rng(3)
    template = rng.integers(0, 256, (300, 400, 3), np.uint8)
    frame = cropped((400, 300), (150.0, 100.0, 230.0, 180.0), 128, by_area=False)
    changed = np.zeros((frame.size[1], frame.size[0]), np.float32)
    drawn = np.full((frame.size[1], frame.size[0], 3), 7, np.uint8)
    assert (frame.back(template, drawn, changed) == template).all()
    changed[40:80, 40:80] = 1.0
    back = frame.back(template, drawn, changed)
    assert (back != template).any()
    outside = np.ones((300, 400), bool)
    outside[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width] = False
    assert (back[outside] == template[outside]).all()
    changed[:] = 1.0
    back = frame.back(template, drawn, changed)
    assert (back[outside] == template[outside]).all()
    middle = back[frame.top + frame.height // 2, frame.left + frame.width // 2]
    assert middle.tolist() == [7, 7, 7]
