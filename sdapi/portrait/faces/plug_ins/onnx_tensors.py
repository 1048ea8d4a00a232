"""One tensor out of an ONNX file, read without the packages for that.

An ONNX file is a protobuf message; field numbers are those of onnx.proto3.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

_GRAPH: Final = 7
_INITIALIZER: Final = 5
_DIMS, _TYPE, _FLOATS, _RAW = 1, 2, 4, 9
_FLOAT: Final = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def last_initializer(path: Path) -> NDArray[np.float32] | None:
    """The last tensor of a model's graph; None unless it is of 32-bit floats."""
    data = memoryview(path.read_bytes())
    tensor: memoryview | None = None
    try:
        for number, value in _fields(data):
            if number == _GRAPH and isinstance(value, memoryview):
                found = [v for n, v in _fields(value) if n == _INITIALIZER]
                tensor = found[-1] if found and isinstance(found[-1], memoryview) else None
        return None if tensor is None else _floats(tensor)
    except (IndexError, ValueError):
        return None


def _floats(tensor: memoryview) -> NDArray[np.float32] | None:
    dims: list[int] = []
    kind, content = 0, b""
    for number, value in _fields(tensor):
        if number == _DIMS and isinstance(value, int):
            dims.append(value)
        elif number == _DIMS and isinstance(value, memoryview):
            dims += _packed(value)
        elif number == _TYPE and isinstance(value, int):
            kind = value
        elif number in (_FLOATS, _RAW) and isinstance(value, memoryview):
            content = bytes(value)
    return np.frombuffer(content, "<f4").reshape(dims) if kind == _FLOAT else None


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        length, at = _varint(data, at) if wire == _BYTES else (_LENGTHS[wire], at)
        if at + length > len(data):
            raise ValueError("the message ends too soon")
        yield number, data[at : at + length]
        at += length


_LENGTHS: Final = {_FIXED64: 8, _FIXED32: 4, 3: 1 << 62, 4: 1 << 62, 6: 1 << 62, 7: 1 << 62}


def _packed(data: memoryview) -> list[int]:
    numbers: list[int] = []
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        numbers.append(number)
    return numbers


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
