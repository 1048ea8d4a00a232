"""Labels around a grid of pictures (contract: webui-scripts 11.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from sdapi.errors import BadRequest
from sdapi.images.grids.font_files import find_font
from sdapi.images.named_colour import rgba
from sdapi.options import Options

_FONT: Final = files("sdapi.images").joinpath("fonts", "Roboto-Regular.ttf")
#: thickness of the line through an inactive label, pixels
_STROKE: Final = 4
_MAX_PIXELS: Final = 200_000_000


@dataclass(frozen=True, slots=True)
class Label:
    """A text beside a column or row; an inactive one is grey and struck through."""

    text: str
    is_active: bool = True


#: for each column or row the labels that stand there, one below the other
Labels = Sequence[Sequence[Label]]


@dataclass(frozen=True, slots=True)
class LegendStyle:
    """How a legend looks, as the options of the same names say."""

    #: None: the one that comes with this package
    font: Path | None = None
    active: str = "#000000"
    inactive: str = "#999999"
    background: str = "#ffffff"

    @classmethod
    def of(cls, options: Options, fonts: Path) -> "LegendStyle":
        """As the options say, with a font of the system or of the folder `fonts`. Blocks.

        Raises `BadRequest` for what is no colour or no font.
        """
        keys = ("grid_text_active_color", "grid_text_inactive_color", "grid_background_color")
        for key in keys:
            rgba(options.text(key), key)
        name = options.text("font")
        font = find_font(name, fonts) if name else None
        return cls(font, *(options.text(key) for key in keys))


def add_legend(
    grid: Image.Image,
    cell: tuple[int, int],
    columns: Labels,
    rows: Labels,
    style: LegendStyle,
    margin: int = 0,
) -> Image.Image:
    """The grid with labels above its columns and left of its rows, and `margin` between cells.

    `cell` is the size of one picture, (width, height). Raises `BadRequest` for a result that is too
    large.
    """
    return _Legend(grid, cell, columns, rows, style, margin).drawn()


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a label, and the size of its ink."""

    text: str
    is_active: bool
    width: int
    height: int


@dataclass(frozen=True)
class _Legend:
    grid: Image.Image
    cell: tuple[int, int]
    columns: Labels
    rows: Labels
    style: LegendStyle
    margin: int

    @cached_property
    def _size(self) -> int:
        """The font's size, pixels."""
        return max(sum(self.cell) // 25, 1)

    @property
    def _spacing(self) -> int:
        return self._size // 2

    @cached_property
    def _font(self) -> ImageFont.FreeTypeFont:
        return _load_font(self.style.font, self._size)

    @cached_property
    def _left(self) -> int:
        """The width of the column of labels."""
        has_text = any(label.text for labels in self.rows for label in labels)
        return self.cell[0] * 3 // 4 if has_text else 0

    @cached_property
    def _column_lines(self) -> list[list[_Line]]:
        return [list(self._lines(labels, self.cell[0])) for labels in self.columns]

    @cached_property
    def _row_lines(self) -> list[list[_Line]]:
        return [list(self._lines(labels, self._left)) for labels in self.rows]

    @cached_property
    def _top(self) -> int:
        """The height of the row of labels."""
        heights = [self._height(lines) for lines in self._column_lines]
        return max(heights) + 2 * self._spacing if sum(heights) else 0

    def _height(self, lines: Sequence[_Line]) -> int:
        return sum(line.height + self._spacing for line in lines) - self._spacing

    def drawn(self) -> Image.Image:
        canvas = self._canvas()
        draw = ImageDraw.Draw(canvas)
        (width, height), margin = self.cell, self.margin
        for column, lines in enumerate(self._column_lines):
            x = self._left + (width + margin) * column + width / 2
            self._write(draw, lines, x, self._top / 2 - self._height(lines) / 2, width)
        for row, lines in enumerate(self._row_lines):
            # A row's spacing counts once more, as in the golden pictures.
            extent = self._height(lines) + self._spacing - self._spacing * len(lines)
            y = self._top + (height + margin) * row + height / 2 - extent / 2
            self._write(draw, lines, self._left / 2, y, self._left)
        return canvas

    def _canvas(self) -> Image.Image:
        """The cells at their places, without labels."""
        (width, height), margin = self.cell, self.margin
        columns, rows = self.grid.width // width, self.grid.height // height
        size = (
            self.grid.width + self._left + margin * (columns - 1),
            self.grid.height + self._top + margin * (rows - 1),
        )
        if size[0] * size[1] > _MAX_PIXELS:
            raise BadRequest(
                f"the grid with its legend would have {size[0]}x{size[1]} pixels; at most "
                f"{_MAX_PIXELS // 1_000_000} megapixels"
            )
        canvas = Image.new("RGB", size, self.style.background)
        for row in range(rows):
            for column in range(columns):
                x, y = column * width, row * height
                place = (
                    self._left + (width + margin) * column,
                    self._top + (height + margin) * row,
                )
                canvas.paste(self.grid.crop((x, y, x + width, y + height)), place)
        return canvas

    def _lines(self, labels: Sequence[Label], allowed: int) -> Iterator[_Line]:
        """The labels broken at blanks so that they fit, as far as blanks allow."""
        for label in labels:
            for text in self._broken(label.text, allowed):
                left, upper, right, lower = self._font.getbbox(text)
                yield _Line(text, label.is_active, int(right - left), int(lower - upper))

    def _broken(self, text: str, allowed: int) -> list[str]:
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".lstrip()
            if self._font.getlength(longer) <= allowed:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def _write(
        self,
        draw: ImageDraw.ImageDraw,
        lines: Sequence[_Line],
        x: float,
        y: float,
        allowed: int,
    ) -> None:
        for line in lines:
            colour = self.style.active if line.is_active else self.style.inactive
            font = self._fitting_font(line.text, allowed)
            draw.text((x, y + line.height / 2), line.text, fill=colour, font=font, anchor="mm")
            if not line.is_active:
                middle, half = y + line.height // 2, line.width // 2
                ends = ((x - half, middle), (x + half, middle))
                draw.line(ends, fill=self.style.inactive, width=_STROKE)
            y += line.height + self._spacing

    def _fitting_font(self, text: str, allowed: int) -> ImageFont.FreeTypeFont:
        """The font, smaller for a word that is too long by itself."""
        font = self._font
        for size in range(self._size - 1, 0, -1):
            if font.getlength(text) <= allowed:
                break
            font = _load_font(self.style.font, size)
        return font


def _load_font(path: Path | None, size: int) -> ImageFont.FreeTypeFont:
    if path is not None:
        return ImageFont.truetype(path, size)
    with as_file(_FONT) as own:
        return ImageFont.truetype(own, size)
