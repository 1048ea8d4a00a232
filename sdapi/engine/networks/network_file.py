"""Reading a LoRA, or one of its kin, into layers."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sdapi.engine.networks.key_forms import split_key
from sdapi.engine.networks.layer import NetworkLayer
from sdapi.engine.weights.state_dict import StateDict, read_state_dict
from sdapi.engine.weights.tensor_bytes import bytes_of
from sdapi.errors import ModelUnusable

_BUNDLE = "bundle_emb."


@dataclass(slots=True)
class LoadedNetwork:
    """A network file in memory, its layers under the paths of `key_forms`."""

    layers: dict[str, NetworkLayer]
    #: tensors of the embeddings the file brings along, by their names
    embeddings: dict[str, StateDict]

    @property
    def size_bytes(self) -> int:
        return bytes_of(tensor for layer in self.layers.values() for tensor in layer.parts.values())

    def move(self, device: torch.device) -> None:
        for layer in self.layers.values():
            for name, tensor in layer.parts.items():
                layer.parts[name] = tensor.to(device)


def read_network(path: Path) -> LoadedNetwork:
    """Read a network file; raises `ModelUnusable` for a broken one, or one that holds NaNs."""
    weights = read_state_dict(path)
    if broken := next((key for key, tensor in weights.items() if not _is_finite(tensor)), None):
        raise ModelUnusable(f"{path.name}: {broken} holds values that are no numbers")
    parts: defaultdict[str, StateDict] = defaultdict(dict)
    embeddings: defaultdict[str, StateDict] = defaultdict(dict)
    for key, tensor in weights.items():
        if key.startswith(_BUNDLE):
            name, _, part = key.removeprefix(_BUNDLE).partition(".")
            embeddings[name][part] = tensor
        else:
            layer, part = split_key(key)
            parts[layer][part] = tensor
    return LoadedNetwork(
        {name: NetworkLayer.of(tensors) for name, tensors in parts.items()}, dict(embeddings)
    )


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    wide = tensor.to(torch.float16) if tensor.element_size() == 1 else tensor
    return bool(wide.isfinite().all())
