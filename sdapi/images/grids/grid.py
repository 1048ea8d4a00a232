"""Several pictures in one."""

import math
from collections.abc import Sequence

from PIL import Image

from sdapi.options import Options


def grid_rows(count: int, options: Options, batch_size: int = 1) -> int:
    """The rows that the options give a grid of `count` pictures, at most one each."""
    rows = options.integer("n_rows")
    if rows > 0:
        return min(rows, count)
    if rows == 0:
        return min(max(batch_size, 1), count)
    if options.flag("grid_prevent_empty_spots"):
        return next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    return min(max(round(math.sqrt(count)), 1), count)  # round half to even, as the reference


def grid_shape(count: int, rows: int | None = None) -> tuple[int, int]:
    """Rows and columns for `count` pictures; without `rows` near a square."""
    if rows is None:
        rows = round(math.sqrt(count))
    rows = min(max(rows, 1), count)
    return rows, math.ceil(count / rows)


def make_grid(
    images: Sequence[Image.Image], rows: int | None = None, *, background: str = "#ffffff"
) -> Image.Image:
    """The pictures row by row in cells as large as the largest, each in the middle of its cell."""
    rows, columns = grid_shape(len(images), rows)
    width = max(image.width for image in images)
    height = max(image.height for image in images)
    grid = Image.new("RGB", (columns * width, rows * height), background)
    for index, image in enumerate(images):
        x = index % columns * width + (width - image.width) // 2
        y = index // columns * height + (height - image.height) // 2
        grid.paste(image, (x, y))
    return grid
