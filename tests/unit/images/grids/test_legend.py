"""Labels around grids: sizes of webui-scripts 11.2, pixels of two recorded grids."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdapi.errors import BadRequest
from sdapi.images.grids.legend import Label, LegendStyle, add_legend
from sdapi.options import Options

GRID = Image.new("RGB", (256, 256), "red")
CELL = (128, 128)
NONE = [[Label("")], [Label("")]]


def labels(*texts: str) -> list[list[Label]]:
    return [[Label(text)] for text in texts]


def test_labels_take_a_line_above_and_three_quarters_of_a_cell_beside():
    assert add_legend(GRID, CELL, labels("a", "b"), NONE, LegendStyle()).width == 256
    both = add_legend(GRID, CELL, labels("Seed: 1", "Seed: 2"), labels("a", "b"), LegendStyle())
    assert both.size == (352, 274)


def test_without_any_text_there_is_only_the_margin():
    made = add_legend(GRID, CELL, NONE, NONE, LegendStyle(background="#00ff00"), 6)
    assert made.size == (262, 262)
    assert made.getpixel((130, 130)) == (0, 255, 0)
    assert made.getpixel((134, 134)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("case", "columns", "rows", "limit"),
    [
        ("t2i_script_xyz_legend", labels("Seed: 1", "Seed: 2"), labels("Steps: 2", "Steps: 3"), 10),
        (
            "t2i_script_prompt_matrix",
            [[Label("red", is_active=False)], [Label("red")]],
            [[Label("blue", is_active=False)], [Label("blue")]],
            10,
        ),
    ],
)
def test_pixels_are_the_recorded_ones(
    golden: Path, case: str, columns: list[list[Label]], rows: list[list[Label]], limit: int
):
    with Image.open(golden / "cases" / case / "img_0.png") as image:
        recorded = image.convert("RGB")
    made = add_legend(recorded.crop((96, 18, 352, 274)), CELL, columns, rows, LegendStyle())
    assert made.size == recorded.size
    difference = np.abs(np.asarray(made).astype(int) - np.asarray(recorded))
    # Another FreeType draws a few edges a shade lighter.
    assert difference.max() <= limit
    assert (difference > 2).sum() < 12


def test_a_long_label_is_broken_and_a_long_word_shrunk():
    short = add_legend(GRID, CELL, labels("a b", "b"), NONE, LegendStyle())
    broken = add_legend(GRID, CELL, labels("word " * 20, "b"), NONE, LegendStyle())
    shrunk = add_legend(GRID, CELL, labels("w" * 100, "b"), NONE, LegendStyle())
    assert short.height < broken.height
    ink = np.asarray(shrunk)[:, :128, 0] < 255
    assert ink[: shrunk.height - 256].any()
    assert not ink[: shrunk.height - 256, 126:].any()


def test_tiny_cells_have_tiny_letters():
    grid = Image.new("RGB", (16, 8))
    made = add_legend(grid, (8, 8), labels("Seed: 1", "Seed: 2"), labels("a"), LegendStyle())
    assert made.width == 16 + 6


def test_colours_are_the_options(tmp_path: Path):
    options = Options({"grid_text_active_color": "#ff0000", "grid_background_color": "black"})
    style = LegendStyle.of(options, tmp_path)
    assert (style.font, style.active, style.background) == (None, "#ff0000", "black")
    with pytest.raises(BadRequest, match="grid_background_color"):
        LegendStyle.of(Options({"grid_background_color": "no colour"}), tmp_path)


def test_a_margin_that_makes_it_too_large_is_refused():
    with pytest.raises(BadRequest, match="megapixels"):
        add_legend(GRID, CELL, NONE, NONE, LegendStyle(), 100_000)
