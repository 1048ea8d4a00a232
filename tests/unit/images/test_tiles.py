import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdapi.images.tiles import TileGrid, by_tiles


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_tiles_lie_where_the_reference_puts_them(golden: Path):
    recorded = json.loads((golden / "vectors" / "split_grid.json").read_text(encoding="utf-8"))
    size = recorded["image_w"], recorded["image_h"]
    grid = TileGrid.of(size, (recorded["tile_w"], recorded["tile_h"]), recorded["overlap"])
    tops = tuple(row[0] for row in recorded["tiles"])
    lefts = tuple(tile[0] for tile in recorded["tiles"][0][2])
    assert (grid.tops, grid.lefts) == (tops, lefts)


def test_small_picture_stands_at_the_end_of_a_black_tile():
    grid = TileGrid.of((5, 8), (8, 8), 2)
    (((tile,),)) = grid.split(Image.new("RGB", (5, 8), "white"))
    assert grid.lefts == (-3,)
    assert np.asarray(tile)[0, :, 0].tolist() == [0, 0, 0, 255, 255, 255, 255, 255]


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    tile=st.integers(8, 40),
    share=st.floats(0, 0.5),
)
def test_unchanged_tiles_make_the_picture_they_came_from(
    width: int, height: int, tile: int, share: float
):
    picture = noise(width, height)
    grid = TileGrid.of((width, height), (tile, tile), int(tile * share))
    joined = by_tiles(picture, grid, lambda piece: piece)
    # a ramp of whole numbers may round a pixel down
    assert np.abs(np.asarray(joined).astype(int) - np.asarray(picture)).max() <= 1


def test_enlarged_tiles_make_the_enlarged_picture():
    picture = noise(50, 30)
    grid = TileGrid.of(picture.size, (16, 16), 4)
    joined = by_tiles(picture, grid, lambda piece: piece.resize((32, 32), Image.Resampling.NEAREST))
    whole = picture.resize((100, 60), Image.Resampling.NEAREST)
    assert np.abs(np.asarray(joined).astype(int) - np.asarray(whole)).max() <= 1


def test_overlap_fades_from_one_tile_into_the_next():
    grid = TileGrid.of((12, 8), (8, 8), 4)
    colours = iter(["black", "white"])
    joined = by_tiles(noise(12, 8), grid, lambda piece: Image.new("RGB", piece.size, next(colours)))
    assert np.asarray(joined)[0, :, 0].tolist() == [0, 0, 0, 0, 0, 63, 127, 191] + [255] * 4
