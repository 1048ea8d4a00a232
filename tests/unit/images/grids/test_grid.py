"""Grids, against the recorded ones."""

from pathlib import Path

import pytest
from PIL import Image

from sdapi.images import grid_rows, make_grid
from sdapi.options import Options

VECTORS = Path(__file__).parents[3] / "golden" / "vectors" / "images"


def pixels_of(image: Image.Image) -> tuple[str, tuple[int, int], bytes]:
    return image.mode, image.size, image.tobytes()


@pytest.fixture(scope="module")
def cells() -> list[Image.Image]:
    strip = Image.open(VECTORS / "grid_5_rows1.png")
    return [strip.crop((x, 0, x + 64, 64)) for x in range(0, 320, 64)]


@pytest.mark.parametrize("count", range(1, 6))
@pytest.mark.parametrize("rows", [1, 2, 3, None])
def test_grid_equals_the_recorded(cells: list[Image.Image], count: int, rows: int | None):
    recorded = Image.open(VECTORS / f"grid_{count}_rows{rows}.png")
    assert pixels_of(make_grid(cells[:count], rows)) == pixels_of(recorded)


def test_smaller_pictures_stand_in_the_middle_of_their_cell():
    grid = make_grid([Image.new("RGB", (4, 4)), Image.new("RGB", (2, 2))], 1, background="#ff0000")
    assert grid.size == (8, 4)
    assert grid.getpixel((4, 0)) == (255, 0, 0)
    assert grid.getpixel((5, 1)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("n_rows", "no_gaps", "count", "batch_size", "rows"),
    [
        (-1, False, 1, 1, 1),
        (-1, False, 3, 1, 2),
        (-1, False, 5, 1, 2),
        (-1, False, 6, 1, 2),
        (-1, False, 7, 1, 3),
        (-1, True, 3, 1, 1),
        (-1, True, 6, 1, 2),
        (0, False, 6, 3, 3),
        (0, False, 2, 8, 2),
        (4, False, 8, 1, 4),
        (9, False, 4, 1, 4),
    ],
)
def test_options_give_the_rows(n_rows: int, no_gaps: bool, count: int, batch_size: int, rows: int):
    options = Options.defaults().overlay({"n_rows": n_rows, "grid_prevent_empty_spots": no_gaps})
    assert grid_rows(count, options, batch_size) == rows
