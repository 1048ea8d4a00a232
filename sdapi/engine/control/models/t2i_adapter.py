"""T2I-Adapters (Mou et al. 2023): features of a picture, added to a UNet's encoder at each level.

They do not depend on what is being drawn, so they are computed once for a sampler run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from accelerate import init_empty_weights
from diffusers.models.adapter import T2IAdapter
from torch import Tensor

from sdapi.engine.control.control import Control, LoadedControl, LoadedModule
from sdapi.engine.control.hints import hint_tensor
from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import ControlFile
from sdapi.engine.control.models.controlnet_keys import count_numbered
from sdapi.engine.control.models.residuals import ResidualControl
from sdapi.engine.control.models.weighting import adapter_scales
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.state_dict import StateDict
from sdapi.errors import ModelUnusable

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

_WRAPPING = "adapter."
_INSIDE = "down_intrablock_additional_residuals"
#: pixels of a side that become one cell
_SHRINKING, _SHRINKING_XL = 8, 16
#: the original full adapter numbers its blocks in one list, two to a level
_FLAT_BLOCK = re.compile(r"body\.(\d+)\.(block1|block2|in_conv)\.(.+)")
_LIGHT_BLOCK = re.compile(r"body\.(\d+)\.body\.(\d+)\.(.+)")
_BLOCKS_A_LEVEL = 2


@dataclass(slots=True)
class LoadedAdapter(LoadedModule[T2IAdapter]):
    """An adapter in memory."""

    works_while_drawing: ClassVar[bool] = False
    #: channels of the picture it reads: three, or one of a sketch
    channels: int
    is_xl: bool

    def control(self, unit: ControlUnit, sampling: "SamplingPass") -> Control:
        pixels = unit.hint_for(is_second_pass=sampling.is_second)
        hint = hint_tensor(pixels, sampling.models.device, self.module.dtype)
        return AdapterControl(unit, sampling, self.features(hint), is_xl=self.is_xl)

    def features(self, hint: Tensor) -> Sequence[Tensor]:
        """What the adapter makes of a picture [1, 3, h, w], a feature map for each level."""
        shrinking = _SHRINKING_XL if self.is_xl else _SHRINKING
        height, width = (-side % shrinking + side for side in hint.shape[-2:])
        if (height, width) != tuple(hint.shape[-2:]):
            hint = F.interpolate(hint, size=(height, width), mode="nearest")
        return self.module(hint[:, : self.channels])


class AdapterControl(ResidualControl):
    """An adapter during one sampler run."""

    def __init__(
        self,
        unit: ControlUnit,
        sampling: "SamplingPass",
        features: Sequence[Tensor],
        *,
        is_xl: bool,
    ) -> None:
        scales = adapter_scales(unit, len(features), is_second_pass=sampling.is_second)
        super().__init__(unit, sampling, scales)
        self._features = features
        self._is_xl = is_xl

    def residuals(self, call: UNetCall, rows: Sequence[int]) -> Sequence[Tensor]:
        sizes = level_sizes(call.x, len(self._features), is_xl=self._is_xl)
        fitting = [
            feature
            if tuple(feature.shape[-2:]) == size
            else F.interpolate(feature, size=size, mode="nearest")
            for feature, size in zip(self._features, sizes, strict=True)
        ]
        return [feature.expand(len(rows), -1, -1, -1) for feature in fitting]

    def _add(self, call: UNetCall, made: Sequence[Tensor]) -> None:
        others = call.arguments.get(_INSIDE)
        if others is not None:
            made = [each + other for each, other in zip(made, others, strict=True)]
        # The UNet takes them off this list one by one.
        call.arguments[_INSIDE] = list(made)


def level_sizes(x: Tensor, levels: int, *, is_xl: bool) -> list[tuple[int, int]]:
    """(height, width) of a UNet's feature maps where an adapter's are added.

    At SDXL's first level that is behind the halving; its last is the middle.
    """
    halvings = [1, 1, 2, 2] if is_xl else range(levels)
    height, width = x.shape[-2:]
    return [(-(-height // 2**n), -(-width // 2**n)) for n in halvings]


def load_adapter(file: ControlFile, base: BaseModel) -> LoadedControl:
    """Build an adapter from its weights; raises `ModelUnusable`."""
    weights = dict(_diffusers_names(file.weights))
    is_xl, is_light = base.vector_width is not None, "body.0.out_conv.weight" in weights
    try:
        levels = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("body."))
        widths = tuple(_width(weights, level, is_light=is_light) for level in range(levels))
        way_in = weights["body.0.in_conv.weight" if is_light else "conv_in.weight"]
        blocks = count_numbered(weights, "body.0.resnets.{}.block1.weight")
    except (KeyError, ValueError) as error:
        raise ModelUnusable(f"the T2I-Adapter has no {error}") from error
    _check(file.name, widths, base)
    shrinking = _SHRINKING_XL if is_xl else _SHRINKING
    kind = "light_adapter" if is_light else "full_adapter_xl" if is_xl else "full_adapter"
    channels = way_in.shape[1] // shrinking**2
    with init_empty_weights(include_buffers=False):
        # A light adapter's last level is as wide as the one before and is not named.
        module = T2IAdapter(
            channels, list(widths[:-1] if is_light else widths), blocks, shrinking, kind
        )
    assign(module, {_WRAPPING + k: v for k, v in weights.items()}, file.name, base.dtype)
    return LoadedAdapter(module, channels, is_xl)


def _diffusers_names(weights: Mapping[str, Tensor]) -> StateDict:
    """The weights under diffusers' names, without the wrapper's."""
    weights = {key.removeprefix(_WRAPPING): tensor for key, tensor in weights.items()}
    if any(".resnets." in key for key in weights):
        return weights
    is_light = any(_LIGHT_BLOCK.match(key) for key in weights)
    return {_renamed(key, is_light=is_light): tensor for key, tensor in weights.items()}


def _renamed(key: str, *, is_light: bool) -> str:
    if is_light:
        return _LIGHT_BLOCK.sub(r"body.\1.resnets.\2.\3", key)
    found = _FLAT_BLOCK.fullmatch(key)
    if found is None:
        return key
    level, block = divmod(int(found[1]), _BLOCKS_A_LEVEL)
    if found[2] == "in_conv":
        return f"body.{level}.in_conv.{found[3]}"
    return f"body.{level}.resnets.{block}.{found[2]}.{found[3]}"


def _width(weights: StateDict, level: int, *, is_light: bool) -> int:
    last = "out_conv.weight" if is_light else "resnets.0.block1.weight"
    return weights[f"body.{level}.{last}"].shape[0]


def _check(name: str, widths: tuple[int, ...], base: BaseModel) -> None:
    """An adapter's levels are as wide as the UNet's; SDXL's middle is one more."""
    expected = base.channels
    if base.vector_width is not None:
        expected = (*base.channels, base.channels[-1])
    if widths != expected:
        raise ModelUnusable(
            f"T2I-Adapter {name} is not compatible with this checkpoint: its levels are "
            f"{list(widths)} wide, the checkpoint needs {list(expected)}"
        )
