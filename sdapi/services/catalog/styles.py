"""Prompt styles: named texts that a request adds to its prompts, kept in `styles.csv`."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_PLACE = "{prompt}"
_DIVIDER_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Style:
    """One style; `{prompt}` in a text stands for the prompt, a text without it goes to its end."""

    name: str
    prompt: str = ""
    negative: str = ""


class Styles:
    """The styles of one or more files, by name; an unknown name is an empty style."""

    def __init__(self, styles: Iterable[Style] = ()) -> None:
        self._styles = {style.name: style for style in styles}

    @classmethod
    def load(cls, *paths: Path) -> Self:
        """The styles of CSV files; a missing file has none."""
        return cls(style for path in paths if path.is_file() for style in read_styles(path))

    def __iter__(self) -> Iterator[Style]:
        return iter(self._styles.values())

    def __len__(self) -> int:
        return len(self._styles)

    def __contains__(self, name: object) -> bool:
        return name in self._styles

    def __getitem__(self, name: str) -> Style:
        return self._styles.get(name) or Style(name)

    def apply(self, prompt: str, negative: str, names: Sequence[str]) -> tuple[str, str]:
        """Prompt and negative prompt with the named styles merged in, in order."""
        chosen = [self[name] for name in names]
        return (
            merge(prompt, [style.prompt for style in chosen]),
            merge(negative, [style.negative for style in chosen]),
        )

    def extract(self, prompt: str, negative: str) -> tuple[list[str], str, str]:
        """The names of the styles that the prompts carry, in the order they were applied, and the
        rest.

        The style applied last is the outermost, so the search goes from the outside in.
        """
        found: list[str] = []
        left = [style for style in self if style.prompt.strip() or style.negative.strip()]
        while match := next(
            ((s, p, n) for s in left for p, n in _without_style(s, prompt, negative)), None
        ):
            style, prompt, negative = match
            left.remove(style)
            found.append(style.name)
        return found[::-1], prompt, negative


def read_styles(path: Path) -> Iterator[Style]:
    """The styles of one CSV file with the columns name, prompt, negative_prompt.

    Rows whose name begins with `#` are comments; old files call the prompt `text`.
    """
    text = path.read_text("utf-8-sig", errors="replace")
    for row in csv.DictReader(io.StringIO(text, newline="")):
        name = (row.get("name") or "").strip()
        if name and not name.startswith("#"):
            prompt = row.get("prompt") if "prompt" in row else row.get("text")
            yield Style(name, prompt or "", row.get("negative_prompt") or "")


def listed_styles(paths: Sequence[Path]) -> list[tuple[str, str | None, str | None]]:
    """Name, prompt and negative prompt of every style, for the listing.

    With more than one file each begins with a divider, whose texts are None.
    """
    files = [path for path in paths if path.is_file()]
    rows: list[tuple[str, str | None, str | None]] = []
    for path in files:
        if len(files) > 1:
            rows.append((f" {path.stem.upper()} ".center(_DIVIDER_WIDTH, "-"), None, None))
        rows += [(style.name, style.prompt, style.negative) for style in Styles.load(path)]
    return rows


def merge(prompt: str, texts: Iterable[str]) -> str:
    """The prompt with style texts put around or after it."""
    for text in texts:
        if _PLACE in text:
            prompt = text.replace(_PLACE, prompt)
        else:
            prompt = ", ".join(part for part in (prompt.strip(), text.strip()) if part)
    return prompt


def _without_style(style: Style, prompt: str, negative: str) -> Iterator[tuple[str, str]]:
    """The prompts without the style; nothing unless both carry it."""
    bare, bare_negative = _without(style.prompt, prompt), _without(style.negative, negative)
    if bare is not None and bare_negative is not None:
        yield bare, bare_negative


def _without(text: str, prompt: str) -> str | None:
    """The prompt that `merge` would have been given; None when the text is not in its place."""
    text, prompt = text.strip(), prompt.strip()
    before, place, after = text.partition(_PLACE)
    if not place:
        before, after = "", text
    if len(prompt) < len(before) + len(after):
        return None
    if not (prompt.startswith(before) and prompt.endswith(after)):
        return None
    bare = prompt[len(before) : len(prompt) - len(after)]
    return bare if place else bare.removesuffix(", ")
