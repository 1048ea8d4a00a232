"""ControlNet-LLLite (kohya-ss 2023): small networks that change what attentions of a UNet read.

Each reads the picture and what its layer is given, and adds to the latter.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from torch import Tensor, nn

from sdapi.engine.adaptations.hooks import Hooks
from sdapi.engine.checkpoints.unet_keys import key_table
from sdapi.engine.control.control import Control, LoadedControl, LoadedModule
from sdapi.engine.control.hints import hint_tensor, region_tensor
from sdapi.engine.control.ip_adapter.attention import PictureCall, token_grid
from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import ControlFile
from sdapi.engine.control.models.weighting import rows_of
from sdapi.engine.control.rows import RowTensors
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.state_dict import StateDict
from sdapi.errors import BadRequest, ModelUnusable

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

_NAME: Final = re.compile(r"lllite_unet_(\w+)")
_READER: Final = "conditioning1"


class LLLiteLayer(nn.Module):
    """The network beside one linear layer."""

    def __init__(self, weights: StateDict) -> None:
        """Of the shapes of `weights`; raises `KeyError` and its kin for a torn file."""
        super().__init__()
        self.conditioning1 = _reader(weights)
        self.down = nn.Sequential(_linear(weights, "down"), nn.ReLU())
        self.mid = nn.Sequential(_linear(weights, "mid"), nn.ReLU())
        self.up = nn.Sequential(_linear(weights, "up"))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """What is added to tokens [N, T, C], of which the picture shows `seen` [1, T, E]."""
        both = torch.cat([seen.expand(len(x), -1, -1), self.down(x)], dim=2)
        return self.up(self.mid(both))


def _reader(weights: StateDict) -> nn.Sequential:
    """Convolutions that halve a picture some times, side by side without overlap."""
    numbers = sorted(
        int(key.split(".")[1])
        for key in weights
        if key.startswith(f"{_READER}.") and "weight" in key
    )
    layers: list[nn.Module] = []
    for number in numbers:
        out, into, side, _ = weights[f"{_READER}.{number}.weight"].shape
        layers += [nn.Conv2d(into, out, side, stride=side), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _linear(weights: StateDict, name: str) -> nn.Linear:
    out, into = weights[f"{name}.0.weight"].shape
    return nn.Linear(into, out)


@dataclass(slots=True)
class LoadedLLLite(LoadedModule[nn.ModuleDict]):
    """A model in memory, its networks by the names of the file."""

    #: that name -> the UNet's layer
    places: dict[str, str]

    def control(self, unit: ControlUnit, sampling: "SamplingPass") -> Control:
        job = sampling.job
        if job.token_merging_ratio > 0 or job.hypertile.unet.enabled:
            raise BadRequest(
                f"{unit.label}: ControlNet-LLLite cannot be used with token merging or Hypertile"
            )
        if unit.advanced is not None:
            raise BadRequest(f"{unit.label}: ControlNet-LLLite knows no advanced_weighting")
        return Control() if unit.weight == 0 else LLLiteControl(self, unit, sampling)


class LLLiteControl(Control):
    """A unit with such a model during one sampler run."""

    def __init__(self, model: LoadedLLLite, unit: ControlUnit, sampling: "SamplingPass") -> None:
        self._unit = unit
        self._unet: Any = sampling.components.unet
        self._call = PictureCall(region=region_tensor(unit, sampling.models.device))
        self._row_tensors = RowTensors()
        pixels = unit.hint_for(is_second_pass=sampling.is_second)
        dtype = next(model.module.parameters()).dtype
        hint = hint_tensor(pixels, sampling.models.device, dtype) * 2 - 1
        placed = [
            (
                self._layer(place, model.module[name]),
                _Placed(model.module[name], hint, unit, self._call),
            )
            for name, place in model.places.items()
        ]
        self._hooks = Hooks()
        for layer, each in placed:
            self._hooks.before(layer, each.changed)

    def _layer(self, place: str, network: nn.Module) -> nn.Module:
        """The UNet's layer beside a network; raises `ModelUnusable` for one of another width."""
        layer = self._unet.get_submodule(place)
        ours, theirs = network.get_submodule("up.0"), layer.get_parameter("weight")
        if ours.get_parameter("weight").shape[0] != theirs.shape[1]:
            raise ModelUnusable(
                f"a ControlNet-LLLite for another checkpoint: {place} reads {theirs.shape[1]} "
                f"numbers, not {ours.get_parameter('weight').shape[0]}"
            )
        return layer

    def before(self, call: UNetCall) -> None:
        # A refiner has other layers, and no part in this.
        acting = rows_of(self._unit, call.rows, pools=False)
        if call.components.unet is self._unet and acting:
            flags = [i in acting for i in range(len(call.rows))]
            rows = self._row_tensors.of(flags, call.x.device)
            self._call.begin(rows, (call.x.shape[-2], call.x.shape[-1]))

    def after(self, call: UNetCall, output: Tensor) -> Tensor:
        self._call.rows = None
        return output

    def close(self) -> None:
        self._hooks.remove()


class _Placed:
    """A network at its layer, with the picture read."""

    def __init__(self, network: nn.Module, hint: Tensor, unit: ControlUnit, call: PictureCall):
        self._network, self._weight, self._call = network, unit.weight, call
        #: what the picture shows [1, E, h, w], and the same for a number of tokens
        self._read: Tensor = network.get_submodule(_READER)(hint)
        self._seen: dict[int, Tensor] = {}

    def changed(self, x: Tensor) -> Tensor:
        """What the layer gets in place of tokens [N, T, C]."""
        rows = self._call.rows
        if rows is None:
            return x
        seen = self._seen_at(x.shape[1])
        added = self._network(x.to(seen.dtype), seen) * self._weight
        share = self._call.share_of(x.shape[1])
        if share is not None:
            added = added * share.to(added.dtype)
        return x + (added * rows.reshape(-1, 1, 1)).to(x.dtype)

    def _seen_at(self, tokens: int) -> Tensor:
        if tokens not in self._seen:
            grid = token_grid(tokens, self._call.size)
            read = self._read
            if tuple(read.shape[-2:]) != grid:
                read = F.interpolate(read, size=grid, mode="nearest")
            self._seen[tokens] = read.flatten(2).transpose(1, 2)
        return self._seen[tokens]


def load_lllite(file: ControlFile, base: BaseModel) -> LoadedControl:
    """Build the networks from their weights; raises `ModelUnusable`."""
    table = {name.replace(".", "_"): place for name, place in key_table(base.encoder).items()}
    parts: dict[str, StateDict] = {}
    for key, tensor in file.weights.items():
        name, _, rest = key.partition(".")
        parts.setdefault(name, {})[rest] = tensor
    module, places = nn.ModuleDict(), dict[str, str]()
    for name, weights in parts.items():
        match = _NAME.fullmatch(name)
        if match is None or match[1] not in table:
            raise ModelUnusable(f"{file.name}: this checkpoint has no layer {name!r}")
        places[name] = table[match[1]]
        with init_empty_weights(include_buffers=False):
            network = LLLiteLayer(weights)
        module[name] = assign(network, weights, f"{file.name}: {name}", base.dtype)
    return LoadedLLLite(module, places)
