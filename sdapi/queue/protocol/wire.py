"""What goes over the wire: frames as protobuf and JSON, durations, attribute lines (contract 4-9).

The three protobuf messages are written by hand. The server only ever encodes them, four fields in
all, and the `protobuf` package would have to be pinned against the clients' own ancient one.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PROTOBUF = "application/vnd.google.protobuf"

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|ms|s|m|h)")
_PLAIN_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Frame:
    """One item as clients see it: `DataFrameProto`."""

    index: int
    tags: Mapping[str, str]
    data: bytes
    message: str = ""


def encode_frame(frame: Frame) -> bytes:
    """`DataFrameProto`: index 1, tags 2, data 3, message 4; empty fields are left out."""
    parts: list[bytes] = []
    if frame.index:
        parts.append(b"\x08" + _varint(frame.index))
    parts.extend(_field(2, _map_entry(k, v)) for k, v in frame.tags.items())
    if frame.data:
        parts.append(_field(3, frame.data))
    if frame.message:
        parts.append(_field(4, frame.message.encode()))
    return b"".join(parts)


def encode_frames(frames: Iterable[Frame]) -> bytes:
    """`DataFrameListProto`, whose only field is 1."""
    return b"".join(_field(1, encode_frame(frame)) for frame in frames)


def encode_attributes(attributes: Mapping[str, str]) -> bytes:
    """`AttributesProto`, a map in field 1."""
    return b"".join(_field(1, _map_entry(k, v)) for k, v in attributes.items())


def frame_json(frame: Frame) -> dict[str, Any]:
    """The same for clients that do not accept protobuf; `message` only when there is one."""
    content: dict[str, Any] = {
        "index": frame.index,
        "tags": dict(frame.tags),
        "data": base64.b64encode(frame.data).decode("ascii"),
    }
    return content | ({"message": frame.message} if frame.message else {})


def parse_duration(text: str) -> float:
    """Seconds of a Go duration (`1m30s`, `500ms`) or of a bare number; raises ValueError."""
    if _PLAIN_NUMBER.fullmatch(text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(parts) != text:
        raise ValueError(f"{text[:40]!r} is no duration such as 5s, 500ms or 1m30s")
    return sum(_seconds(part) for part in parts)


def _seconds(part: str) -> float:
    number = part.rstrip("nuµmsh")
    return float(number) * _UNIT_S[part[len(number) :]]


def format_duration(milliseconds: int) -> str:
    """As Go prints one of whole milliseconds: `997ms`, `2.091s`, `19m11.174s`, `2h30m57.08s`."""
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds > 0 else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field (wire type 2)."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _map_entry(key: str, value: str) -> bytes:
    return _field(1, key.encode()) + _field(2, value.encode())
