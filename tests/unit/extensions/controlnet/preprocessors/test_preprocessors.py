"""Preprocessors: the recorded maps of those without weights, names, sliders, unusual pictures."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sdapi.engine.control.annotators.auxiliary import controlnet_aux
from sdapi.errors import BadImage, BadRequest, UnknownName
from sdapi.extensions.controlnet.preprocessors import (
    PREPROCESSORS,
    TAGS,
    Kind,
    Mask,
    find,
    module_detail,
    module_list,
    modules_of,
)
from tests.servers import GOLDEN

RECORDED = GOLDEN / "controlnet"
MAPS: list[dict[str, Any]] = json.loads((RECORDED / "maps.json").read_text("utf-8"))
MODULES: dict[str, Any] = json.loads((RECORDED / "modules.json").read_text("utf-8"))
WEIGHTLESS = [p for p in PREPROCESSORS if p.kind is Kind.WEIGHTLESS]


def picture(name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(GOLDEN / "inputs" / name).convert("RGB"))


def channels_for(preprocessor: Any) -> int:
    return 4 if preprocessor.mask is Mask.REQUIRED else 3


@pytest.mark.parametrize("case", MAPS, ids=lambda case: case["map"])
def test_map_equals_the_recorded_one(case: dict[str, Any]) -> None:
    recorded = np.asarray(Image.open(RECORDED / "maps" / f"{case['map']}.png").convert("RGB"))

    made = find(case["module"]).run(
        picture(case["picture"]),
        resolution=case["resolution"],
        threshold_a=case["threshold_a"],
        threshold_b=case["threshold_b"],
    )

    assert np.array_equal(made.pixels, recorded)


def test_names_and_labels_are_listed_in_the_recorded_order() -> None:
    assert module_list() == MODULES["names"]["module_list"]
    assert module_list(alias_names=True) == MODULES["labels"]["module_list"]


def test_sliders_are_the_recorded_ones_down_to_the_kind_of_number() -> None:
    assert json.dumps(module_detail()) == json.dumps(MODULES["names"]["module_detail"])
    labels = module_detail(alias_names=True)
    assert json.dumps(labels) == json.dumps(MODULES["labels"]["module_detail"])


def test_control_types_offer_the_recorded_modules() -> None:
    assert {tag: modules_of(tag) for tag in TAGS} == MODULES["types"]


@pytest.mark.parametrize("preprocessor", PREPROCESSORS, ids=lambda p: p.name)
def test_both_names_find_the_same_preprocessor(preprocessor: Any) -> None:
    assert find(preprocessor.name) is find(preprocessor.label) is preprocessor


def test_unknown_name_is_refused_with_near_ones() -> None:
    with pytest.raises(UnknownName, match=r"module\(cany\) not found .* 'canny'"):
        find("cany")


def test_values_out_of_range_become_the_default() -> None:
    canny = find("canny").values(16, -1, 300)

    assert (canny.resolution, canny.threshold_a, canny.threshold_b) == (512, 100, 200)


def test_values_of_hidden_sliders_are_what_infotexts_of_the_reference_show() -> None:
    inpaint, shuffle = find("inpaint_only").values(512, -1, 64), find("shuffle").values(64, -1, -1)

    assert (inpaint.resolution, inpaint.threshold_a, inpaint.threshold_b) == (0.5, 0.5, 0.5)
    assert shuffle.resolution == 512


def test_whole_defaults_stay_whole_numbers() -> None:
    assert repr(find("canny").values(-1, -1, -1).threshold_a) == "100"
    assert repr(find("tile_resample").values(-1, -1, -1).threshold_a) == "1.0"


def test_shuffle_moves_colours_as_the_original_does_for_the_same_seed() -> None:
    image = picture("a128.png")
    large = np.asarray(find("blur_gaussian").run(image, resolution=512, threshold_a=0.01).pixels)
    np.random.seed(7)
    original = controlnet_aux().ContentShuffleDetector()(
        large, h=512, w=512, f=256, detect_resolution=512, image_resolution=512, output_type="np"
    )

    made = find("shuffle").run(image, seed=7).pixels

    assert np.array_equal(made, original)
    assert not np.array_equal(made, find("shuffle").run(image, seed=8).pixels)


def test_tile_resample_divides_the_sides() -> None:
    assert find("tile_resample").run(picture("wide160x96.png"), threshold_a=2).pixels.shape == (
        48,
        80,
        3,
    )


def test_lineart_of_a_blank_sheet_is_black() -> None:
    sheet = np.full((70, 90, 3), 250, np.uint8)

    assert find("lineart_standard").run(sheet).pixels.max() == 0


@pytest.mark.parametrize("preprocessor", WEIGHTLESS, ids=lambda p: p.name)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 70)])
def test_tiny_pictures_have_maps(preprocessor: Any, size: tuple[int, int]) -> None:
    pixels = np.full((*size, channels_for(preprocessor)), 90, np.uint8)

    made = preprocessor.run(pixels, resolution=64).pixels

    assert made.dtype == np.uint8
    assert made.ndim == 3
    assert min(made.shape[:2]) >= 1


@pytest.mark.parametrize("preprocessor", WEIGHTLESS, ids=lambda p: p.name)
def test_grey_pictures_are_taken_unless_a_mask_is_required(preprocessor: Any) -> None:
    grey = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    if preprocessor.mask is Mask.REQUIRED:
        with pytest.raises(BadRequest, match="requires a mask"):
            preprocessor.run(grey)
        return

    made = preprocessor.run(grey, resolution=64).pixels

    assert np.array_equal(made, preprocessor.run(np.dstack([grey] * 3), resolution=64).pixels)


def test_fourth_channel_counts_for_inpainting_alone() -> None:
    rgba = np.dstack([picture("a128.png"), np.full((128, 128), 255, np.uint8)])

    assert find("inpaint_only").run(rgba).pixels.shape == (128, 128, 4)
    assert find("invert").run(rgba).pixels.shape == (128, 128, 3)


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 5, 3), (5, 5, 2), (5, 5, 3, 1), (5,)])
def test_arrays_that_are_no_picture_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadImage, match="canny"):
        find("canny").run(np.zeros(shape, np.uint8))


def test_picture_that_would_become_too_large_is_refused() -> None:
    with pytest.raises(BadRequest, match="resolution of 512"):
        find("canny").run(np.zeros((1, 5000, 3), np.uint8), resolution=512)


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    resolution=st.integers(64, 200),
)
def test_map_keeps_the_aspect_ratio(height: int, width: int, resolution: int) -> None:
    made = find("threshold").run(np.zeros((height, width, 3), np.uint8), resolution=resolution)

    expected = [round(side * resolution / min(height, width)) for side in (height, width)]
    assert list(made.pixels.shape[:2]) == expected


def test_table_needs_neither_opencv_nor_torch() -> None:
    program = "import sdapi.extensions.controlnet.preprocessors, sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert not {"cv2", "torch", "controlnet_aux"} & set(run.stdout.split())
