"""Query parameters of the queue: reserved ones, in underscores, and tags (contract 4 and 7)."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from sdapi.errors import SDAPIError
from sdapi.queue.protocol.wire import parse_duration
from sdapi.queue.stores.store import MAX_INDEX, MAX_PRIORITY

MAX_LENGTH = 10_000
MAX_WINDOW = 10_000
MAX_INDEXES = 10_000
MAX_TIMEOUT_S = 3600.0
MAX_TAGS = 64
MAX_PARAMETERS = 1000
MAX_TAG_BYTES = 8192

_LARGEST_INDEX = (1 << 64) - 1
_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}


class BadParameter(SDAPIError):
    """A parameter that cannot be meant so; answered as a line of text."""

    status, code = 400, "bad_parameter"


@dataclass(frozen=True, slots=True)
class Parameters:
    """A parsed query string; of a name that is repeated the last value counts."""

    reserved: Mapping[str, str]
    tags: Mapping[str, str]

    @classmethod
    def parse(cls, query: str) -> "Parameters":
        """Raises `BadParameter` for what is no form encoding of UTF-8, or holds too much."""
        if query.count("&") >= MAX_PARAMETERS:
            raise BadParameter(f"the query string has at most {MAX_PARAMETERS} parameters")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
        except ValueError as error:
            raise BadParameter("the query string is no percent-encoded UTF-8") from error
        reserved = {name: value for name, value in pairs if name.startswith("_")}
        tags = {name: value for name, value in pairs if name and not name.startswith("_")}
        size = sum(len(name.encode()) + len(value.encode()) for name, value in tags.items())
        if len(tags) > MAX_TAGS or size > MAX_TAG_BYTES:
            raise BadParameter(f"at most {MAX_TAGS} tags of {MAX_TAG_BYTES} bytes in all")
        return cls(reserved, tags)

    def flag(self, name: str, default: bool = False) -> bool:
        text = self.reserved.get(name)
        if text is None:
            return default
        if text.lower() not in _FLAGS:
            raise BadParameter(f"{name} is true or false, not {text[:40]!r}")
        return _FLAGS[text.lower()]

    def number(self, name: str, default: int, low: int, high: int) -> int:
        text = self.reserved.get(name)
        if not text:
            return default
        return _integer(name, text, low, high)

    @property
    def index(self) -> int:
        """0 from the head, n from that index on, -1 the newest.

        On the wire an index has 64 bits; beyond ours there is nothing.
        """
        return min(self.number("_index_", 0, -1, _LARGEST_INDEX), MAX_INDEX)

    @property
    def length(self) -> int:
        return self.number("_length_", 1, 1, MAX_LENGTH)

    @property
    def window(self) -> int:
        """Items that a watch may hold; with auto commit there is none, and 1 stands for it."""
        if self.flag("_auto_commit_"):
            return 1
        return self.number("_window_", 1, 1, MAX_WINDOW)

    @property
    def timeout_s(self) -> float:
        text = self.reserved.get("_timeout_", "")
        try:
            seconds = parse_duration(text) if text else 0.0
        except ValueError as error:
            raise BadParameter(f"_timeout_: {error}") from error
        if seconds > MAX_TIMEOUT_S:
            raise BadParameter(f"_timeout_ is at most {MAX_TIMEOUT_S:g}s")
        return seconds

    @property
    def indexes(self) -> list[int]:
        text = self.reserved.get("_indexes_", "")
        if not text:
            raise BadParameter("_indexes_ is missing: the items meant, as in _indexes_=1,2")
        parts = text.split(",")
        if len(parts) > MAX_INDEXES:
            raise BadParameter(f"_indexes_ takes at most {MAX_INDEXES}")
        given = [_integer("_indexes_", part.strip(), 0, _LARGEST_INDEX) for part in parts]
        return [index for index in given if index <= MAX_INDEX]

    def priority(self, header: str | None = None) -> int:
        """Of a put; the query counts before the header."""
        text = self.reserved.get("_priority_") or header or ""
        return _integer("_priority_", text, 0, MAX_PRIORITY) if text else 0


def _integer(name: str, text: str, low: int, high: int) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
        raise BadParameter(f"{name} is a number, not {text[:40]!r}")
    if not low <= int(text) <= high:
        raise BadParameter(f"{name} is from {low} to {high}, not {text}")
    return int(text)
