"""Hypernetworks: small networks before the keys and values of a UNet's attention.

Contract: webui-scripts 17.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sdapi.engine.weights.state_dict import StateDict, read_content
from sdapi.engine.weights.tensor_bytes import module_bytes
from sdapi.errors import ModelUnusable

#: Names whose meaning is not the torch class of that name in lower case.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"swish": nn.Hardswish}
_OLD_LINEAR = re.compile(r"^linear([12])\.")
_MAX_FACTOR = 64


@dataclass(slots=True)
class LoadedHypernetwork:
    """A hypernetwork file in memory: for each width of context its networks for keys and values."""

    pairs: dict[int, tuple[nn.Sequential, nn.Sequential]]

    @property
    def size_bytes(self) -> int:
        return module_bytes(*(net for pair in self.pairs.values() for net in pair))

    def move(self, device: torch.device) -> None:
        for pair in self.pairs.values():
            for network in pair:
                network.to(device)


def read_hypernetwork(path: Path, dtype: torch.dtype) -> LoadedHypernetwork:
    """Read a hypernetwork file; raises `ModelUnusable`."""
    content = read_content(path)
    if not isinstance(content, Mapping):
        raise ModelUnusable(f"{path.name}: no hypernetwork")
    entries = cast("Mapping[object, Any]", content)
    pairs: dict[int, tuple[nn.Sequential, nn.Sequential]] = {}
    try:
        layout = _Layout.of(entries)
        for width, states in entries.items():
            if isinstance(width, int):
                keys, values = (layout.build(width, state) for state in (states[0], states[1]))
                pairs[width] = keys.to(dtype), values.to(dtype)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelUnusable(f"{path.name}: no usable hypernetwork ({error})") from error
    if not pairs:
        raise ModelUnusable(f"{path.name}: no hypernetwork: it has no networks")
    return LoadedHypernetwork(pairs)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a file says about the shape of its networks."""

    #: widths of the layers, in multiples of the context's
    structure: tuple[float, ...]
    activation: str | None
    has_layer_norm: bool
    activates_output: bool
    has_dropout: bool
    drops_last: bool
    dropouts: tuple[float, ...] | None

    @classmethod
    def of(cls, entries: Mapping[object, Any]) -> "_Layout":
        structure = tuple(float(factor) for factor in entries.get("layer_structure") or (1, 2, 1))
        if len(structure) < 2 or structure[0] != 1 or structure[-1] != 1:
            raise ValueError(f"layer_structure {structure}")
        if not all(0 < factor <= _MAX_FACTOR for factor in structure):
            raise ValueError(f"layer_structure {structure}")
        dropouts = entries.get("dropout_structure")
        return cls(
            structure,
            entries.get("activation_func"),
            bool(entries.get("is_layer_norm", False)),
            bool(entries.get("activate_output", True)),
            bool(entries.get("use_dropout", False)),
            bool(entries.get("last_layer_dropout", False)),
            tuple(dropouts) if dropouts else None,
        )

    def build(self, width: int, state: object) -> nn.Sequential:
        """One network of the file, with its weights; dropout never acts, but has its number."""
        layers: list[nn.Module] = []
        count = len(self.structure) - 1
        for index, (before, after) in enumerate(
            zip(self.structure, self.structure[1:], strict=False)
        ):
            layers.append(nn.Linear(int(width * before), int(width * after)))
            is_last = index == count - 1
            activation = _activation(self.activation)
            if activation is not None and (not is_last or self.activates_output):
                layers.append(activation)
            if self.has_layer_norm:
                layers.append(nn.LayerNorm(int(width * after)))
            if self._drops(index, is_last):
                layers.append(nn.Identity())
        network = nn.Sequential(*layers)
        network.load_state_dict(_renamed(state))
        return network.requires_grad_(False).eval()

    def _drops(self, index: int, is_last: bool) -> bool:
        if self.dropouts is not None:
            return self.dropouts[index + 1] > 0
        return self.has_dropout and (not is_last or self.drops_last)


def _activation(name: str | None) -> nn.Module | None:
    if name is None or name == "linear":
        return None
    known = {key.lower(): getattr(nn, key) for key in nn.modules.activation.__all__}
    try:
        return (known | _ACTIVATIONS)[name]()
    except (KeyError, TypeError):
        raise ValueError(f"unknown activation {name!r}") from None


def _renamed(state: object) -> StateDict:
    """Keys as `Sequential` has them; the oldest files number the layers in the name."""
    if not isinstance(state, Mapping):
        raise TypeError("the weights are no dictionary")
    renamed: StateDict = {}
    for key, tensor in cast("Mapping[str, Tensor]", state).items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{key} holds values that are no numbers")
        name = _OLD_LINEAR.sub(lambda match: f"{int(match[1]) - 1}.", key)
        renamed[name.removeprefix("linear.")] = tensor
    return renamed


class AttachedHypernetworks:
    """Hypernetworks on one UNet: hooks on its key and value layers, none when none is active.

    They are copies, because a cache may move or drop what it has lent.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._unet = unet
        self._hooks: list[RemovableHandle] = []
        self._networks: list[tuple[float, LoadedHypernetwork]] = []

    @property
    def size_bytes(self) -> int:
        """Bytes of the copies."""
        return sum(network.size_bytes for _, network in self._networks)

    def detach(self) -> None:
        """Leave the UNet as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._networks.clear()

    def attach(self, networks: Sequence[tuple[float, LoadedHypernetwork]]) -> int:
        """Put these, with their strengths, in the place of those before.

        Each takes what the one before gives. Returns the number of layers that any of them acts on.
        """
        self.detach()
        self._networks = [(strength, deepcopy(network)) for strength, network in networks]
        for module in self._unet.modules() if networks else ():
            if isinstance(module, Attention):
                self._hook(module.to_k, 0)
                self._hook(module.to_v, 1)
        return len(self._hooks)

    def _hook(self, layer: object, side: int) -> None:
        assert isinstance(layer, nn.Linear)
        acting = [
            (strength, network.pairs[layer.in_features][side])
            for strength, network in self._networks
            if layer.in_features in network.pairs
        ]
        if not acting:
            return

        def change(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            context = inputs[0]
            for strength, network in acting:
                # A UNet that is offloaded is on the device only while it runs.
                context = context + network.to(context.device)(context) * strength
            return context, *inputs[1:]

        self._hooks.append(layer.register_forward_pre_hook(change))
