"""Which fonts a request may name."""

import os
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from sdapi.errors import BadRequest, UnknownName
from sdapi.images.grids.font_files import find_font
from sdapi.images.grids.legend import LegendStyle
from sdapi.options import Options


@pytest.fixture
def fonts(tmp_path: Path) -> Path:
    """A folder with one font, and one file that is none."""
    folder = tmp_path / "fonts"
    (folder / "sub").mkdir(parents=True)
    shutil.copyfile(
        str(files("sdapi.images").joinpath("fonts", "Roboto-Regular.ttf")), folder / "sub/Own.ttf"
    )
    (folder / "broken.ttf").write_bytes(b"none")
    return folder


@pytest.mark.parametrize("name", ["Own.ttf", "own", "OWN.TTF"])
def test_a_font_is_found_by_its_name(fonts: Path, name: str):
    assert find_font(name, fonts) == fonts / "sub/Own.ttf"
    assert LegendStyle.of(Options({"font": name}), fonts).font == fonts / "sub/Own.ttf"


def test_a_font_is_found_by_its_path(fonts: Path):
    path = fonts / "sub/Own.ttf"
    assert find_font(str(path), fonts) == path


@pytest.mark.parametrize(
    "outside", ["/etc/hostname", "/dev/zero", "../outside.ttf", "\0", "x" * 9000]
)
def test_nothing_else_is_opened(fonts: Path, outside: str):
    with pytest.raises(UnknownName, match=r"font: .* there are .*the folder fonts"):
        find_font(outside, fonts)


def test_a_font_elsewhere_is_none(fonts: Path, tmp_path: Path):
    elsewhere = tmp_path / "Own.ttf"
    shutil.copyfile(fonts / "sub/Own.ttf", elsewhere)
    for name in (str(elsewhere), os.path.relpath(elsewhere), str(fonts / "../Own.ttf")):
        with pytest.raises(UnknownName):
            find_font(name, fonts)


def test_a_file_that_is_no_font_is_named(fonts: Path):
    with pytest.raises(BadRequest, match=r"broken\.ttf cannot be read as a font"):
        find_font("broken", fonts)
