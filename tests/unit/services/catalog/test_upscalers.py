from pathlib import Path

import pytest

from sdapi.engine.upscaling.upscaler import Filter, ModelUpscaler, Tiles
from sdapi.errors import BadRequest, UnknownName
from sdapi.options import Options
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.settings import Settings

FILES = (
    "ESRGAN/b-mine.pth",
    "ESRGAN/sub/A-mine.safetensors",
    "ESRGAN/readme.txt",
    "RealESRGAN/RealESRGAN_x4plus.pth",
    "RealESRGAN/RealESRGAN_x2plus.pth",
    "DAT/DAT_x3.pth",
    "HAT/hat-l.pth",
    "SwinIR/003_realSR.pth",
    "ScuNET/scunet_color_real_psnr.pth",
)


@pytest.fixture
def upscalers(tmp_path: Path) -> Upscalers:
    for name in FILES:
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return Upscalers(Settings(data_dir=tmp_path))


def find(upscalers: Upscalers, name: str, **options: object) -> ModelUpscaler:
    found = upscalers.find(name, Options.defaults().overlay(options))
    assert isinstance(found, ModelUpscaler)
    return found


def test_filters_are_first_and_files_follow_by_name_without_letter_case(upscalers: Upscalers):
    assert upscalers.filters() == ("None", "Lanczos", "Nearest")
    assert [file.name for file in upscalers.files()] == [
        *("003_realSR", "A-mine", "b-mine", "DAT x3", "hat-l"),
        *("R-ESRGAN 2x+", "R-ESRGAN 4x+", "ScuNET PSNR"),
    ]


def test_published_models_have_the_webuis_names_and_factors(upscalers: Upscalers):
    scales = {file.name: file.scale for file in upscalers.files()}
    assert (scales["R-ESRGAN 2x+"], scales["DAT x3"], scales["b-mine"]) == (2, 3, 4)


@pytest.mark.parametrize("name", ["R-ESRGAN 4x+", "RealESRGAN_x4plus", "RealESRGAN_x4plus.pth"])
def test_file_is_found_by_its_name_and_by_its_file_name(upscalers: Upscalers, name: str):
    assert find(upscalers, name).file.path.name == "RealESRGAN_x4plus.pth"
    assert upscalers.find("Lanczos", Options.defaults()) is Filter.LANCZOS


@pytest.mark.parametrize(
    ("name", "tiles"),
    [
        ("b-mine", Tiles(192, 8)),
        ("DAT x3", Tiles(100, 8)),
        ("hat-l", Tiles(192, 8)),
        ("003_realSR", Tiles(192, 8, averages=True)),
        ("ScuNET PSNR", Tiles(256, 8, averages=True)),
    ],
)
def test_each_kind_of_model_has_tile_options_of_its_own(
    upscalers: Upscalers, name: str, tiles: Tiles
):
    assert find(upscalers, name, DAT_tile=100).tiles == tiles


def test_tiles_that_cannot_be_are_refused(upscalers: Upscalers):
    assert find(upscalers, "b-mine", ESRGAN_tile=0).tiles.size == 0
    for options in ({"ESRGAN_tile": 16, "ESRGAN_tile_overlap": 16}, {"ESRGAN_tile": 10**6}):
        with pytest.raises(BadRequest, match="ESRGAN_tile"):
            find(upscalers, "b-mine", **options)


def test_unknown_upscaler_is_refused_with_the_near_names(upscalers: Upscalers):
    with pytest.raises(
        UnknownName, match="could not find upscaler named DAT x4; there are 'DAT x3'"
    ):
        upscalers.find("DAT x4", Options.defaults())


def test_upscaler_put_there_while_the_server_runs_is_found(upscalers: Upscalers):
    folder = upscalers.settings.auxiliary_dirs["ESRGAN"]
    (folder / "new.pth").write_bytes(b"x")
    assert find(upscalers, "new").name == "new"
