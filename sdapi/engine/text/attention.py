"""Emphasis: `(word)`, `(word:1.3)`, `[word]` and `BREAK` -> weighted fragments."""

import re
from dataclasses import dataclass

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
    pieces: list[tuple[str, float]] = []
    round_open: list[int] = []
    square_open: list[int] = []

    def scale(start: int, factor: float) -> None:
        pieces[start:] = [(text, weight * factor) for text, weight in pieces[start:]]

    position = 0
    while position < len(prompt):
        char = prompt[position]
        step = 1
        if char == "\\":
            escaped = prompt[position + 1 : position + 2]
            if escaped in _ESCAPED and escaped:
                pieces.append((escaped, 1.0))
                step = 2
            # A backslash before anything else is dropped.
        elif char in "([":
            (round_open if char == "(" else square_open).append(len(pieces))
            if len(round_open) + len(square_open) > _MAX_OPEN:
                raise BadRequest(f"prompt: more than {_MAX_OPEN} brackets are open at once")
        elif char == ":" and round_open and (match := _CLOSING_WEIGHT.match(prompt, position)):
            scale(round_open.pop(), _weight(match[1]))
            step = len(match[0])
        elif char == ")" and round_open:
            scale(round_open.pop(), ROUND_WEIGHT)
        elif char == "]" and square_open:
            scale(square_open.pop(), SQUARE_WEIGHT)
        elif match := _TEXT.match(prompt, position):
            pieces.extend(_split_breaks(match[0]))
            step = len(match[0])
        else:
            pieces.append((char, 1.0))
        position += step

    for start in round_open:
        scale(start, ROUND_WEIGHT)
    for start in square_open:
        scale(start, SQUARE_WEIGHT)
    return _merge(pieces)


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
    merged: list[Fragment] = []
    for text, weight in pieces:
        if merged and merged[-1].weight == weight:
            merged[-1] = Fragment(merged[-1].text + text, weight)
        else:
            merged.append(Fragment(text, weight))
    return merged or [Fragment("", 1.0)]
