"""Reading weight files: safetensors, and pickles through PyTorch's restricted unpickler only."""

import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from sdapi.errors import ModelUnreadable, ModelUnusable

StateDict = dict[str, Tensor]
_PICKLE_PROTOCOLS = (b"\2", b"\3", b"\4", b"\5")
#: what torch lets out when bytes are not what they promise to be
_BROKEN = (
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    struct.error,
    zipfile.BadZipFile,
)
#: the part of torch's message that says what was in the way
_FOREIGN_NAME = re.compile(r"GLOBAL ([\w.]+)")


def read_state_dict(path: Path) -> StateDict:
    """Read every tensor of a weight file to the CPU.

    Nested pickles (`{"state_dict": …}`, `{"model": …}`, `{"params_ema": …}`) are unwrapped; where
    there are only groups of tensors, their names are put before those of the tensors.
    Raises `ModelUnusable` naming the file and the reason when it is missing, truncated, foreign, or
    a pickle that holds anything but tensors and plain containers.
    """
    return _tensors_of(read_content(path), path)


def read_content(path: Path) -> object:
    """Read a weight file to the CPU: a safetensors file's tensors, or whatever a pickle holds.

    Raises `ModelUnusable` as `read_state_dict` does.
    """
    try:
        if path.suffix.lower() == ".safetensors" or _is_safetensors(path):
            return load_file(path, device="cpu")
        return _read_pickle(path)
    except FileNotFoundError:
        raise ModelUnreadable(f"{path.name}: the file is gone") from None
    except SafetensorError as error:
        raise ModelUnusable(f"{path.name}: not a whole safetensors file ({error})") from error
    except OSError as error:
        reason = error.strerror or error
        raise ModelUnreadable(f"{path.name}: cannot be read ({reason})") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The string metadata in a safetensors header; empty for other files."""
    if path.suffix.lower() != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _is_safetensors(path: Path) -> bool:
    """Whether the file starts with a safetensors header, whatever its name says."""
    with path.open("rb") as file:
        head = file.read(9)
        if len(head) < 9 or head[8:9] != b"{":
            return False
        length = int.from_bytes(head[:8], "little")
        if length > 100_000_000:
            return False
        try:
            json.loads(head[8:] + file.read(length - 1))
        except ValueError:
            return False
    return True


def _read_pickle(path: Path) -> object:
    """What a pickle holds. torch's own messages advise to load what may be an attack."""
    if not _is_pickle(path):
        raise ModelUnusable(f"{path.name}: not a PyTorch file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = _FOREIGN_NAME.search(str(error))
        reason = f" but holds {foreign[1]}" if foreign else ""
        raise ModelUnusable(
            f"{path.name}: refused, because it is no plain weight file{reason}; "
            "convert it to .safetensors"
        ) from error
    except _BROKEN as error:
        raise ModelUnusable(f"{path.name}: broken or not a PyTorch file") from error


def _is_pickle(path: Path) -> bool:
    """Whether the file begins as a zip archive or as a pickle of protocol 2 or later does."""
    with path.open("rb") as file:
        head = file.read(4)
    return head == b"PK\3\4" or (head[:1] == b"\x80" and head[1:2] in _PICKLE_PROTOCOLS)


def _tensors_of(content: object, path: Path) -> StateDict:
    for key in ("state_dict", "params_ema", "params", "model", "depth_model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ModelUnusable(f"{path.name}: holds no dictionary of tensors")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        # Parts of a model, each a dictionary of its own, as IP-Adapters are saved.
        tensors = {
            f"{part}.{k}": v
            for part, group in content.items()
            if isinstance(group, dict)
            for k, v in group.items()
            if isinstance(v, Tensor)
        }
    if not tensors:
        raise ModelUnusable(f"{path.name}: holds no tensors")
    return tensors
