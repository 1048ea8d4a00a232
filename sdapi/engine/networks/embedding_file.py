"""Reading textual inversion embeddings: vectors that stand for a word (Gal et al. 2022).

Contract: webui-generation 13.4.
"""

import base64
import binascii
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from sdapi.engine.networks.embedding_picture import hidden_content
from sdapi.engine.weights.state_dict import read_content
from sdapi.errors import ModelUnusable

PICTURE_SUFFIXES = (".png", ".webp", ".jxl", ".avif")
_CHUNK = "sd-ti-embedding"
_MAX_VECTORS = 75
_MAX_PIXELS = 16_000_000
_SHORT = 12
#: guards torch's own list of what pickles may name
_SAFE_NAMES_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """Vectors that stand for a name in prompts; equal only to itself."""

    name: str
    #: [N, C] for each of the text encoders it was made for, float32
    vectors: tuple[Tensor, ...]
    #: what infotext tells beside the name; empty when there is nothing
    shorthash: str = ""
    #: the network that brought it along, which infotext tells instead
    bundled_with: str = ""
    step: int | None = None
    sd_checkpoint: str | None = None
    sd_checkpoint_name: str | None = None

    def __len__(self) -> int:
        return len(self.vectors[0])

    @property
    def width(self) -> int:
        """Of one vector, all text encoders together."""
        return sum(vectors.shape[1] for vectors in self.vectors)

    def fits(self, widths: tuple[int, ...]) -> bool:
        """Whether it was made for text encoders of these widths."""
        return tuple(vectors.shape[1] for vectors in self.vectors) == widths


def is_picture(path: Path) -> bool:
    """Whether an embedding of this file would be in a picture, which also holds its name."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def read_embedding(path: Path) -> Embedding:
    """Read an embedding file; raises `ModelUnusable` for what holds none."""
    try:
        content = _picture_content(path) if is_picture(path) else _file_content(path)
        shorthash = hashlib.sha256(path.read_bytes()).hexdigest()[:_SHORT]
    except OSError as error:
        raise ModelUnusable(f"{path.name}: cannot be read ({error.strerror or error})") from error
    if not isinstance(content, Mapping):
        raise ModelUnusable(f"{path.name}: holds no embedding")
    try:
        entries = cast("Mapping[str, Any]", content)
        name = str(entries.get("name", path.stem)) if is_picture(path) else path.stem
        return make_embedding(name, entries, shorthash)
    except ModelUnusable as error:
        raise ModelUnusable(f"{path.name}: {error}") from error


def make_embedding(
    name: str, content: Mapping[str, Any], shorthash: str = "", bundled_with: str = ""
) -> Embedding:
    """An embedding from what a file holds; raises `ModelUnusable`."""
    vectors = tuple(_matrix(tensor) for tensor in _tensors(content))
    if any(len(each) != len(vectors[0]) for each in vectors):
        raise ModelUnusable("its text encoders get different numbers of vectors")
    if not 1 <= len(vectors[0]) <= _MAX_VECTORS:
        raise ModelUnusable(f"{len(vectors[0])} vectors; a prompt has room for {_MAX_VECTORS}")
    step = content.get("step")
    return Embedding(
        name,
        vectors,
        shorthash,
        bundled_with,
        step=step if isinstance(step, int) else None,
        sd_checkpoint=_text(content.get("sd_checkpoint")),
        sd_checkpoint_name=_text(content.get("sd_checkpoint_name")),
    )


def _tensors(content: Mapping[str, Any]) -> tuple[object, ...]:
    params = content.get("string_to_param")
    if params is not None:
        # Old files keep a module of parameters here.
        params = getattr(params, "_parameters", params)
        if not isinstance(params, Mapping) or len(params) != 1:
            raise ModelUnusable("an embedding file holds one set of vectors")
        return (next(iter(params.values())),)
    if "clip_l" in content and "clip_g" in content:
        return content["clip_l"], content["clip_g"]
    if len(content) == 1:
        return (next(iter(content.values())),)
    raise ModelUnusable("holds no embedding")


def _matrix(tensor: object) -> Tensor:
    if not isinstance(tensor, Tensor) or tensor.ndim not in (1, 2):
        raise ModelUnusable("holds no vectors")
    matrix = tensor.detach().to(torch.float32)
    if not bool(matrix.isfinite().all()):
        raise ModelUnusable("holds values that are no numbers")
    return matrix.unsqueeze(0) if matrix.ndim == 1 else matrix


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _file_content(path: Path) -> object:
    # The first training program kept its vectors in this container, which is as plain as a dict.
    with _SAFE_NAMES_LOCK, torch.serialization.safe_globals([torch.nn.ParameterDict]):
        return read_content(path)


def _picture_content(path: Path) -> object:
    """What a picture carries: in a text chunk, or in its own pixels."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ModelUnusable(f"{path.name}: too large a picture for an embedding")
            chunk = image.info.get(_CHUNK)
            if isinstance(chunk, str):
                return _from_json(base64.b64decode(chunk, validate=True))
            hidden = hidden_content(image)
    except (OSError, SyntaxError, Image.DecompressionBombError, binascii.Error) as error:
        raise ModelUnusable(f"{path.name}: no readable picture") from error
    if hidden is None:
        raise ModelUnusable(f"{path.name}: a picture without an embedding")
    return _from_json(hidden)


def _from_json(text: bytes) -> object:
    def revive(entry: dict[str, Any]) -> object:
        return torch.tensor(entry["TORCHTENSOR"]) if "TORCHTENSOR" in entry else entry

    try:
        return json.loads(text, object_hook=revive)
    except (ValueError, TypeError, RuntimeError, RecursionError) as error:
        raise ModelUnusable("its embedding is not readable") from error
