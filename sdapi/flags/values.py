"""A flag's value from the text that somebody gave."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from sdapi.flags.flag import REPEATABLE, Flag, Kind


class FlagError(ValueError):
    """A command line that cannot be understood; the text is for the person who typed it."""


def from_text(flag: Flag, text: str) -> Any:
    """The value in a text; raises ValueError with a sentence."""
    if flag.choices and text not in flag.choices:
        raise ValueError(f"{text!r} is none of {', '.join(flag.choices)}")
    if flag.kind in REPEATABLE or flag.kind is Kind.WORDS:
        return [part.strip() for part in text.split(",") if part.strip()]
    return CONVERTERS[flag.kind](text)


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


CONVERTERS: Mapping[Kind, Callable[[str], Any]] = {
    Kind.SWITCH: _switch,
    Kind.TEXT: str,
    Kind.INTEGER: int,
    Kind.NUMBER: float,
    Kind.PATH: str,
    Kind.JSON: json.loads,
}
