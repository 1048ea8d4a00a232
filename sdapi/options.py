"""Runtime options: the webui's option keys with their defaults, as an immutable overlay.

`options.json` beside this file is the table. `Settings` are what the process was started with;
`Options` are what `GET/POST /sdapi/v1/options` shows and what `override_settings` replaces for one
job. Nothing edits an `Options`: an overlay is a new object, and a job carries its own.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Self, cast

from sdapi.errors import BadRequest, UnknownName, near_names

#: beyond it a float holds no whole numbers
_LARGEST = 2.0**53

__all__ = ["OptionSpec", "Options", "option_specs"]


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """One option of the table."""

    key: str
    #: text, integer, number, flag or list
    type: str
    default: object
    #: a request may not change it: it guards the server against requests
    restricted: bool = False
    description: str = ""


@cache
def option_specs() -> Mapping[str, OptionSpec]:
    """Every option this server knows, in the order `GET /options` lists them."""
    rows = json.loads(files("sdapi").joinpath("options.json").read_text("utf-8"))
    return {row["key"]: OptionSpec(**row) for row in rows}


class Options(Mapping[str, object]):
    """All options with their values; unchanged ones have the default.

    A value is what was set: like the reference, setting does not check types. The typed readers
    (`text`, `number`, `integer`, `flag`, `names`) convert, and name the option when that fails.
    """

    __slots__ = ("_changed", "_foreign")

    def __init__(
        self,
        changed: Mapping[str, object] | None = None,
        foreign: Mapping[str, object] | None = None,
    ) -> None:
        self._changed = dict(changed or {})
        #: keys of a config file that are no options here (another extension's); written back unread
        self._foreign = dict(foreign or {})

    @classmethod
    def defaults(cls) -> Self:
        """Every option at its default."""
        return cls()

    @classmethod
    def load(cls, path: Path) -> Self:
        """The options of a `config.json`; defaults where there is no file or no entry."""
        try:
            values: object = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return cls()
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path} does not hold a JSON object")
        known = option_specs()
        entries = cast("dict[str, object]", values)
        return cls(
            {key: value for key, value in entries.items() if key in known},
            {key: value for key, value in entries.items() if key not in known},
        )

    def save(self, path: Path) -> None:
        """Write every option and foreign key; a reader sees the old file or the new one."""
        text = json.dumps({**self, **self._foreign}, indent=4, ensure_ascii=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise

    def overlay(self, values: Mapping[str, object]) -> Self:
        """These options with a request's values on top.

        An unknown key is an error. Restricted options keep their value without a word, as in the
        reference.
        """
        known = option_specs()
        for key in values:
            if key not in known:
                raise UnknownName(f"'{key}' is not an option; near names: {near_names(key, known)}")
        allowed = {
            key: _checked(known[key], value)
            for key, value in values.items()
            if not known[key].restricted
        }
        return type(self)({**self._changed, **allowed}, self._foreign)

    def __getitem__(self, key: str) -> object:
        if key in self._changed:
            return self._changed[key]
        return option_specs()[key].default

    def __iter__(self) -> Iterator[str]:
        return iter(option_specs())

    def __len__(self) -> int:
        return len(option_specs())

    def text(self, key: str) -> str:
        """The option as text; null is the empty text."""
        value = self[key]
        return "" if value is None else str(value)

    def number(self, key: str) -> float:
        """The option as a number; null is 0."""
        return float(self._number(key))

    def integer(self, key: str) -> int:
        """The option as a whole number; a fraction is cut off, null is 0."""
        return int(self._number(key))

    def flag(self, key: str) -> bool:
        """The option as yes or no; texts such as "false" and "0" are no."""
        value = self[key]
        if isinstance(value, str):
            return value.strip().lower() not in {"", "0", "false", "no", "off", "none"}
        return bool(value)

    def names(self, key: str) -> list[str]:
        """The option as a list of texts; a lone text is a list of one."""
        value = self[key]
        if isinstance(value, str):
            return [value] if value else []
        return (
            [str(item) for item in cast("list[object]", value)] if isinstance(value, list) else []
        )

    def convert(self, key: str, value: object) -> object:
        """An infotext's text as a value of the option's own type: that of its default.

        "False" is false for a flag, any other text true. An option without default takes the text.
        """
        spec = option_specs()[key]
        if spec.default is None:
            return value
        try:
            if isinstance(spec.default, bool):
                return value != "False" and bool(value)
            if isinstance(spec.default, int):
                return _whole(value)
            if isinstance(spec.default, float):
                return float(cast("str | float", value))
            return str(value) if isinstance(spec.default, str) else value
        except (TypeError, ValueError, OverflowError) as error:
            raise BadRequest(
                f"{value!r} is no value for the option '{key}' ({spec.type})"
            ) from error

    def _number(self, key: str) -> float | int:
        value = self[key]
        if value is None:
            return 0
        try:
            return value if isinstance(value, (int, float)) else float(cast("str", value))
        except (TypeError, ValueError, OverflowError) as error:
            raise BadRequest(f"option '{key}' is {value!r}, which is no number") from error


def _whole(value: object) -> int:
    """A whole number from a text or number; "2.0" is one, "2.5" is not."""
    if isinstance(value, str) and not value.strip().lstrip("+-").isdigit():
        value = float(value)
    number = float(value) if isinstance(value, float) else int(cast("str", value))
    if number != int(number):
        raise ValueError(value)
    return int(number)


def _checked(spec: OptionSpec, value: object) -> object:
    """A request's value for an option, if readers of the option can use it; null they can."""
    if value is None:
        return value
    if spec.type in ("integer", "number"):
        try:
            fits = abs(float(cast("str | float", value))) <= _LARGEST
        except (TypeError, ValueError, OverflowError):
            fits = False
    elif spec.type == "list":
        fits = isinstance(value, (list, str))
    else:
        fits = isinstance(value, (str, int, float))
    if not fits:
        raise BadRequest(
            f"{str(value)[:100]!r} is no value for the option '{spec.key}' ({spec.type})"
        )
    return value
