"""Emphasis: `(word)`, `(word:1.3)`, `[word]` and `BREAK` -> weighted fragments."""

import re
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

import numpy as np

from sdapi.errors import BadRequest

ROUND_WEIGHT = 1.1
SQUARE_WEIGHT = 1 / 1.1
BREAK = "BREAK"
BREAK_WEIGHT = -1.0

_ESCAPED = set("()[]\\")
_CLOSING_WEIGHT = re.compile(r":\s*([+-]?[.\d]+)\s*\)")
_TEXT = re.compile(r"[^\\()\[\]:]+")
_BREAK_WORD = re.compile(r"\bBREAK\b")
#: Deeper nesting is no emphasis any more, and its weights cost time.
_MAX_OPEN = 200
_MAX_WEIGHT = 1e6


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of text with one weight; a chunk break is `Fragment("BREAK", -1.0)`."""

    text: str
    weight: float

    @property
    def is_break(self) -> bool:
        """Whether this is the break marker; brackets change its weight and make it plain text."""
        return self.text == BREAK and self.weight == BREAK_WEIGHT


def parse_attention(prompt: str) -> list[Fragment]:
    """Split a prompt into weighted fragments, equal neighbours merged.

    Raises `BadRequest` for a weight that is no number, such as `(a:1..2)`.
    Contract: webui-generation 2.6.
    """
    reading, position = _Reading(prompt), 0
    while position < len(prompt):
        position += reading.take(position)
    return _merge(reading.closed())


@dataclass(slots=True)
class _Reading:
    """A prompt while it is read: its pieces so far, and the brackets that are open."""

    prompt: str
    pieces: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    #: what brackets multiply, in the order they closed: the pieces from one to before another
    scales: list[tuple[int, int, float]] = field(default_factory=list[tuple[int, int, float]])
    #: the piece behind each
    round_open: list[int] = field(default_factory=list[int])
    square_open: list[int] = field(default_factory=list[int])

    def take(self, position: int) -> int:
        """Read what stands at a position; returns how long it is."""
        char = self.prompt[position]
        if char == "\\":
            return self._take_escaped(self.prompt[position + 1 : position + 2])
        if char in "([":
            self._open(self.round_open if char == "(" else self.square_open)
        elif char == ":" and self.round_open and (weight := self._closing_weight(position)):
            self._scale(self.round_open.pop(), _weight(weight[1]))
            return len(weight[0])
        elif char == ")" and self.round_open:
            self._scale(self.round_open.pop(), ROUND_WEIGHT)
        elif char == "]" and self.square_open:
            self._scale(self.square_open.pop(), SQUARE_WEIGHT)
        elif match := _TEXT.match(self.prompt, position):
            self.pieces.extend(_split_breaks(match[0]))
            return len(match[0])
        else:
            self.pieces.append((char, 1.0))
        return 1

    def _closing_weight(self, position: int) -> re.Match[str] | None:
        return _CLOSING_WEIGHT.match(self.prompt, position)

    def closed(self) -> list[tuple[str, float]]:
        """The pieces, brackets that were left open taken for closed at the end."""
        for start in self.round_open:
            self._scale(start, ROUND_WEIGHT)
        for start in self.square_open:
            self._scale(start, SQUARE_WEIGHT)
        return self._weighted()

    def _take_escaped(self, escaped: str) -> int:
        """A backslash before anything that needs none is dropped."""
        if escaped not in _ESCAPED:
            return 1
        self.pieces.append((escaped, 1.0))
        return 2

    def _open(self, brackets: list[int]) -> None:
        brackets.append(len(self.pieces))
        if len(self.round_open) + len(self.square_open) > _MAX_OPEN:
            raise BadRequest(f"prompt: more than {_MAX_OPEN} brackets are open at once")

    def _scale(self, start: int, factor: float) -> None:
        self.scales.append((start, len(self.pieces), factor))

    def _weighted(self) -> list[tuple[str, float]]:
        """The pieces with their weights, multiplied innermost first: another order rounds else.

        At once, for that is one pass over a long text for each bracket around it.
        """
        weights = np.array([weight for _, weight in self.pieces])
        with np.errstate(over="ignore", invalid="ignore"):
            for start, end, factor in self.scales:
                weights[start:end] *= factor
        texts = (text for text, _ in self.pieces)
        return list(zip(texts, weights.tolist(), strict=True))


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        raise BadRequest(
            f"could not convert string to float: {text!r}; a weight is one number, as in (word:1.2)"
        ) from None
    if abs(weight) > _MAX_WEIGHT:
        raise BadRequest(f"prompt: the weight {weight:g} is out of range; at most {_MAX_WEIGHT:g}")
    return weight


def _split_breaks(text: str) -> list[tuple[str, float]]:
    first, *rest = _BREAK_WORD.split(text)
    if not rest:
        return [(first, 1.0)]
    pieces = [(first.rstrip(), 1.0)]
    for i, part in enumerate(rest):
        part = part.lstrip() if i == len(rest) - 1 else part.strip()
        pieces += [(BREAK, BREAK_WEIGHT), (part, 1.0)]
    return pieces


def _merge(pieces: list[tuple[str, float]]) -> list[Fragment]:
    runs = groupby(pieces, key=itemgetter(1))
    merged = [Fragment("".join(text for text, _ in run), weight) for weight, run in runs]
    return merged or [Fragment("", 1.0)]
