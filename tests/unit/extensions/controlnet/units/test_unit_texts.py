"""Units in infotexts, and the names of models."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdapi.errors import BadRequest, UnknownName
from sdapi.extensions.controlnet.model_files import ControlModels
from sdapi.extensions.controlnet.preprocessors import find
from sdapi.extensions.controlnet.units.infotext import read_unit_text, unit_text
from sdapi.extensions.controlnet.units.unit_fields import UnitFields, read_unit
from sdapi.options import Options
from sdapi.services.catalog.catalog import Catalog
from sdapi.services.catalog.model_files.hashes import HashCache
from sdapi.settings import Settings


def text_of(unit: UnitFields) -> str:
    values = find(unit.module).values(unit.processor_res, unit.threshold_a, unit.threshold_b)
    return unit_text(unit, values)


def test_a_units_text_is_the_references():
    unit = read_unit({"module": "canny", "model": "control_v11p_sd15_canny [d14c016b]"}, "args.0")
    assert text_of(unit) == (
        "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1.0, "
        "Resize Mode: Crop and Resize, Processor Res: 512, Threshold A: 100, Threshold B: 200, "
        "Guidance Start: 0.0, Guidance End: 1.0, Pixel Perfect: False, Control Mode: Balanced"
    )


def test_a_value_that_would_break_the_list_empties_the_text():
    assert text_of(read_unit({"module": "canny", "model": "a, b"}, "args.0")) == ""
    assert text_of(read_unit({"module": "canny", "model": "a: b"}, "args.0")) == ""


@given(
    weight=st.floats(0, 2),
    window=st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted),
    resize_mode=st.sampled_from(["Just Resize", "Crop and Resize", "Resize and Fill"]),
    control_mode=st.integers(0, 2),
    module=st.sampled_from(["canny", "none", "invert", "tile_resample"]),
    pixel_perfect=st.booleans(),
)
@example(
    weight=1e-05,
    window=[0.0, 1.0],
    resize_mode="Just Resize",
    control_mode=0,
    module="canny",
    pixel_perfect=False,
)
def test_a_unit_is_read_back_from_its_text(
    weight: float,
    window: list[float],
    resize_mode: str,
    control_mode: int,
    module: str,
    pixel_perfect: bool,
):
    given_fields = {
        "module": module,
        "model": "m",
        "weight": weight,
        "guidance_start": window[0],
        "guidance_end": window[1],
        "resize_mode": resize_mode,
        "control_mode": control_mode,
        "pixel_perfect": pixel_perfect,
    }
    unit = read_unit(given_fields, "args.0")
    again = read_unit(read_unit_text(text_of(unit)), "args.0")
    # A default in whole numbers is a fraction once it was sent.
    assert text_of(again).replace(".0,", ",") == text_of(unit).replace(".0,", ",")
    assert again.weight == unit.weight


@given(st.text())
def test_any_text_is_read_without_failing(text: str):
    read_unit_text(text)


@pytest.fixture
def models(tmp_path: Path) -> ControlModels:
    settings = Settings(data_dir=tmp_path)
    folder = tmp_path / "models" / "ControlNet"
    for name in ("control_canny_small", "control_canny", "sub/depth"):
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    annotators = folder / "annotators" / "net.pth"
    annotators.parent.mkdir()
    annotators.write_bytes(b"no control model")
    checkpoint = tmp_path / "models" / "Stable-diffusion" / "one.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    return ControlModels(settings, Catalog(settings, HashCache(tmp_path)))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("control_canny", "control_canny"),
        ("CONTROL_Canny", "control_canny"),
        ("canny", "control_canny"),
        ("canny_small", "control_canny_small"),
        ("control_canny [deadbeef]", "control_canny"),
        ("depth", "depth"),
    ],
)
def test_a_model_is_found_by_name_part_or_in_spite_of_its_hash(
    models: ControlModels, name: str, found: str
):
    assert models.find(name, Options.defaults()).base_name == found


def test_models_have_the_old_hash_and_a_full_name(models: ControlModels):
    listed = models.all(Options.defaults())
    assert [model.base_name for model in listed] == [
        "control_canny",
        "control_canny_small",
        "depth",
    ]
    # Files shorter than a mebibyte hash as nothing.
    assert listed[0].name == "control_canny [e3b0c442]"
    assert models.find(listed[0].name, Options.defaults()) == listed[0]


def test_a_missing_model_is_told_with_near_names(models: ControlModels):
    with pytest.raises(UnknownName, match=r"model not found: control_cannny.*'control_canny \["):
        models.find("control_cannny", Options.defaults())
    with pytest.raises(BadRequest, match="You have not selected any ControlNet Model"):
        models.find("None", Options.defaults())
