"""A picture in overlapping tiles, and back (contract: webui-scripts 11.1)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Where the tiles of a picture lie, pixels: left edges, top edges, size and overlap.

    An edge is negative where the picture is smaller than a tile.
    """

    lefts: tuple[int, ...]
    tops: tuple[int, ...]
    #: (width, height) of every tile
    tile: tuple[int, int]
    #: (width, height) of the picture
    size: tuple[int, int]
    overlap: int

    @classmethod
    def of(cls, size: tuple[int, int], tile: tuple[int, int], overlap: int) -> "TileGrid":
        """The fewest evenly spread tiles that cover a picture; `overlap` is less than a tile."""
        lefts = _edges(size[0], tile[0], overlap)
        return cls(lefts, _edges(size[1], tile[1], overlap), tile, size, overlap)

    def scaled(self, factor: int) -> "TileGrid":
        """The same grid over the picture enlarged by a whole factor."""
        return TileGrid(
            tuple(left * factor for left in self.lefts),
            tuple(top * factor for top in self.tops),
            (self.tile[0] * factor, self.tile[1] * factor),
            (self.size[0] * factor, self.size[1] * factor),
            self.overlap * factor,
        )

    def split(self, image: Image.Image) -> list[list[Image.Image]]:
        """Rows of tiles; what lies outside the picture is black."""
        width, height = self.tile
        return [
            [image.crop((left, top, left + width, top + height)) for left in self.lefts]
            for top in self.tops
        ]

    def combine(self, rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
        """The picture that tiles make: each fades in over its neighbour before it."""
        width, height = self.size
        ramp = np.arange(self.overlap, dtype=np.float32) * 255 / max(self.overlap, 1)
        across = Image.fromarray(np.tile(ramp, (self.tile[1], 1)).astype(np.uint8))
        down = Image.fromarray(np.tile(ramp[:, None], (1, width)).astype(np.uint8))
        picture = Image.new("RGB", (width, height))
        for top, tiles in zip(self.tops, rows, strict=True):
            row = Image.new("RGB", (width, self.tile[1]))
            for left, tile in zip(self.lefts, tiles, strict=True):
                self._paste(row, tile, (left, 0), (self.overlap, 0), across)
            self._paste(picture, row, (0, top), (0, self.overlap), down)
        return picture

    @staticmethod
    def _paste(
        canvas: Image.Image,
        piece: Image.Image,
        at: tuple[int, int],
        overlap: tuple[int, int],
        ramp: Image.Image,
    ) -> None:
        """Paste a piece, its first `overlap` pixels along one axis through the ramp."""
        dx, dy = overlap
        if max(at) <= 0 or dx + dy == 0:
            canvas.paste(piece, at)
            return
        edge = (dx or piece.width, dy or piece.height)
        canvas.paste(piece.crop((0, 0, *edge)), at, mask=ramp)
        canvas.paste(piece.crop((dx, dy, *piece.size)), (at[0] + dx, at[1] + dy))


def by_tiles(
    image: Image.Image, grid: TileGrid, work: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """The picture after `work` on each tile; it may enlarge by a whole factor."""
    rows = [[work(tile) for tile in tiles] for tiles in grid.split(image)]
    factor = rows[0][0].width // grid.tile[0]
    return (grid.scaled(factor) if factor > 1 else grid).combine(rows)


def _edges(side: int, tile: int, overlap: int) -> tuple[int, ...]:
    count = max(math.ceil((side - overlap) / (tile - overlap)), 1)
    step = (side - tile) / (count - 1) if count > 1 else 0.0
    return tuple(min(int(i * step), side - tile) for i in range(count))
