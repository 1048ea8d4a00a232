"""Small ONNX files, written field by field: the format's own package is not needed to run them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_IR_VERSION, _OPSET = 8, 13
_FLOAT, _INT64 = 1, 7
_ATTRIBUTE_INT, _ATTRIBUTE_INTS = 2, 7


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def pb(number: int, value: int | bytes | str) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


@dataclass
class OnnxFile:
    """A graph of one input, built node by node."""

    input: str
    shape: tuple[int, ...]
    _nodes: list[bytes] = field(default_factory=list)
    _tensors: list[bytes] = field(default_factory=list)
    _outputs: list[bytes] = field(default_factory=list)

    def tensor(self, name: str, values: np.ndarray) -> str:
        """A constant; float32, or int64 for whole numbers."""
        is_whole = values.dtype.kind == "i"
        data = values.astype("<i8" if is_whole else "<f4").tobytes()
        dims = b"".join(pb(1, side) for side in values.shape)
        kind = pb(2, _INT64 if is_whole else _FLOAT)
        self._tensors.append(dims + kind + pb(8, name) + pb(9, data))
        return name

    def node(
        self, kind: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]
    ) -> str:
        """An operation; its output's name."""
        content = b"".join(pb(1, each) for each in inputs) + pb(2, output)
        content += pb(3, f"node {output}") + pb(4, kind) + _attributes(attributes)
        self._nodes.append(content)
        return output

    def output(self, name: str, shape: tuple[int, ...]) -> None:
        """Say that a node's output is the graph's."""
        self._outputs.append(_value(name, shape))

    def write(self, path: Path) -> Path:
        """The file."""
        graph = b"".join(pb(1, each) for each in self._nodes) + pb(2, "graph")
        graph += b"".join(pb(5, each) for each in self._tensors)
        graph += pb(11, _value(self.input, self.shape))
        graph += b"".join(pb(12, each) for each in self._outputs)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pb(1, _IR_VERSION) + pb(7, graph) + pb(8, pb(1, "") + pb(2, _OPSET)))
        return path


def _attributes(attributes: Mapping[str, int | Sequence[int]]) -> bytes:
    out = b""
    for name, value in attributes.items():
        if isinstance(value, int):
            content = pb(1, name) + pb(3, value) + pb(20, _ATTRIBUTE_INT)
        else:
            content = pb(1, name) + b"".join(pb(8, each) for each in value)
            content += pb(20, _ATTRIBUTE_INTS)
        out += pb(5, content)
    return out


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(pb(1, pb(1, side)) for side in shape)
    return pb(1, name) + pb(2, pb(1, pb(1, _FLOAT) + pb(2, dims)))
