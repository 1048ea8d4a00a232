"""Request bodies as clients write them: JSON, or the Python-flavoured text of the samples.

The second is read as a literal and never evaluated: strings in either quote, numbers, lists,
objects, `True`, `true`, `None`, `null` …, trailing commas.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any, Final, Never, cast

MAX_DEPTH: Final = 32
MAX_BYTES: Final = 1 << 20

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_PLAIN: Final = {"'": re.compile(r"[^'\\\n]*"), '"': re.compile(r'[^"\\\n]*')}
_ESCAPED: Final = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.S
)
_WORDS: Final = {
    "True": True, "true": True, "False": False, "false": False, "None": None, "null": None,
}  # fmt: skip
_ESCAPES: Final = {
    "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\",
    "'": "'", '"': '"', "\n": "",
}  # fmt: skip


class LiteralError(ValueError):
    """The text is neither JSON nor such a literal."""


def parse_body(data: bytes, *, is_tolerant: bool) -> dict[str, Any]:
    """The object in a body; raises LiteralError. `is_tolerant` allows the second form."""
    if len(data) > MAX_BYTES:
        raise LiteralError(f"more than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LiteralError("not UTF-8") from error
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        if not is_tolerant:
            raise LiteralError("not JSON") from error
        value = parse_literal(text)
    if not isinstance(value, dict):
        raise LiteralError("not an object")
    _refuse_nesting(value)
    return value


def parse_literal(text: str) -> Any:
    """The value that a literal spells; raises LiteralError."""
    reader = _Reader(text)
    value = reader.value(0)
    reader.skip_space()
    if reader.at < len(text):
        reader.fail("something follows the value")
    return value


def _refuse_nesting(value: object) -> None:
    """As deep as a literal may be and no deeper: answers repeat what they were asked."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise LiteralError("nested too deeply")


def _inside(value: Any) -> Iterable[Any]:
    match value:
        case dict():
            return cast("dict[str, Any]", value).values()
        case list():
            return cast("list[Any]", value)
        case _:
            return ()


def _no_constant(name: str) -> Never:
    raise LiteralError(f"{name} is no JSON")


def _with_pairs_joined(text: str) -> str:
    """JSON spells characters beyond the first plane as two escapes."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise LiteralError("a number is too large")
    return number


class _Reader:
    """Reads one value after the other; `at` is where it has got to."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, what: str) -> Never:
        raise LiteralError(f"{what} at character {self.at}")

    def skip_space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self.fail("nested too deeply")
        self.skip_space()
        match self.text[self.at : self.at + 1]:
            case "{":
                return self._object(depth)
            case "[":
                return self._list(depth)
            case "'" | '"':
                return self._string()
            case _:
                return self._number_or_word()

    def _object(self, depth: int) -> dict[str, Any]:
        self.at += 1
        found: dict[str, Any] = {}
        while not self._closes("}"):
            if self.text[self.at : self.at + 1] not in ("'", '"'):
                self.fail("a key must be a string")
            key = self._string()
            self._expect(":")
            found[key] = self.value(depth + 1)
            self._separate("}")
        return found

    def _list(self, depth: int) -> list[Any]:
        self.at += 1
        found: list[Any] = []
        while not self._closes("]"):
            found.append(self.value(depth + 1))
            self._separate("]")
        return found

    def _closes(self, bracket: str) -> bool:
        self.skip_space()
        if self.text[self.at : self.at + 1] != bracket:
            return False
        self.at += 1
        return True

    def _expect(self, sign: str) -> None:
        self.skip_space()
        if self.text[self.at : self.at + 1] != sign:
            self.fail(f"{sign!r} is missing")
        self.at += 1

    def _separate(self, bracket: str) -> None:
        """Past a comma, or up to the closing bracket."""
        self.skip_space()
        sign = self.text[self.at : self.at + 1]
        if sign == ",":
            self.at += 1
        elif sign != bracket:
            self.fail(f"',' or {bracket!r} is missing")

    def _string(self) -> str:
        quote = self.text[self.at]
        self.at += 1
        parts: list[str] = []
        while True:
            plain = _PLAIN[quote].match(self.text, self.at)
            parts.append(plain[0] if plain else "")
            self.at = plain.end() if plain else self.at
            if self.text[self.at : self.at + 1] == quote:
                self.at += 1
                return _with_pairs_joined("".join(parts))
            parts.append(self._escape())

    def _escape(self) -> str:
        found = _ESCAPED.match(self.text, self.at)
        if found is None:
            self.fail("a string does not end")
        code = found[1] or found[2] or found[3]
        if code is not None and int(code, 16) > 0x10FFFF:
            self.fail("no such character")
        self.at = found.end()
        return chr(int(code, 16)) if code is not None else _ESCAPES.get(found[4], found[0])

    def _number_or_word(self) -> Any:
        if number := _NUMBER.match(self.text, self.at):
            self.at = number.end()
            try:
                return int(number[0])
            except ValueError:  # not whole, or more digits than Python converts
                return _finite(number[0])
        word = _WORD.match(self.text, self.at)
        if word is None or word[0] not in _WORDS:
            self.fail("no value")
        self.at = word.end()
        return _WORDS[word[0]]
