"""ControlNets (Zhang et al. 2023): residuals for a UNet's skip connections and its middle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import init_empty_weights
from diffusers.models.controlnets.controlnet import (
    ControlNetConditioningEmbedding,
    ControlNetModel,
)
from torch import Tensor

from sdapi.engine.checkpoints.unet_keys import encoder_config
from sdapi.engine.control.control import Control, LoadedControl, LoadedModule
from sdapi.engine.control.hints import hint_tensor
from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import ControlFile
from sdapi.engine.control.models.controlnet_keys import (
    ControlNetShape,
    read_diffusers,
    read_original,
)
from sdapi.engine.control.models.residuals import EncoderInputs, ResidualControl
from sdapi.engine.control.models.weighting import control_scales
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.weights.assigning import assign

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

#: part of the names of models whose residuals are averaged over the picture
_POOLING = "shuffle"
_READER = "controlnet_cond_embedding"


class RememberedHint(ControlNetConditioningEmbedding):
    """Reads a picture once and not at every step, for it stays the same."""

    def forward(self, conditioning: Tensor) -> Tensor:
        read: tuple[Tensor, Tensor] | None = getattr(self, "_read", None)
        if read is None or read[0] is not conditioning:
            read = (conditioning, super().forward(conditioning))
            self._read = read
        return read[1]

    def forget(self) -> None:
        """Let go of the picture that was read last."""
        self._read = None


@dataclass(slots=True)
class LoadedControlNet(LoadedModule[ControlNetModel]):
    """A ControlNet in memory."""

    #: its residuals are averaged over the picture
    pools: bool

    def control(self, unit: ControlUnit, sampling: "SamplingPass") -> Control:
        return ControlNetControl(self.module, unit, sampling, pools=self.pools)


class ControlNetControl(ResidualControl):
    """A ControlNet during one sampler run."""

    def __init__(
        self,
        module: ControlNetModel,
        unit: ControlUnit,
        sampling: "SamplingPass",
        *,
        pools: bool = False,
    ) -> None:
        is_second = sampling.is_second
        scales = control_scales(
            unit, len(module.controlnet_down_blocks) + 1, is_second_pass=is_second
        )
        super().__init__(unit, sampling, scales, pools=pools)
        self._module = module
        pixels = unit.hint_for(is_second_pass=is_second)
        self._hint = hint_tensor(pixels, sampling.models.device, module.dtype)

    def residuals(self, call: UNetCall, rows: Sequence[int]) -> Sequence[Tensor]:
        inputs = EncoderInputs.of(call, rows, self._module.dtype)
        down, middle = self._module(
            inputs.x,
            inputs.t,
            encoder_hidden_states=inputs.cross,
            controlnet_cond=self._hint,
            added_cond_kwargs=inputs.added,
            return_dict=False,
        )
        return [*down, middle]

    def close(self) -> None:
        hint_reader(self._module).forget()


def hint_reader(module: torch.nn.Module) -> RememberedHint:
    """The layers of a ControlNet that read the picture."""
    return cast("RememberedHint", module.get_submodule(_READER))


def load_controlnet(file: ControlFile, base: BaseModel) -> LoadedControl:
    """Build a ControlNet from its weights; raises `ModelUnusable`."""
    if any(key.startswith(f"{_READER}.") for key in file.weights):
        shape, weights = read_diffusers(file.weights), file.weights
    else:
        shape, weights = read_original(file.weights)
    base.check(file.name, shape.encoder)
    with init_empty_weights(include_buffers=False):
        module = ControlNetModel(**controlnet_config(shape, base))
    assign(module, weights, file.name, base.dtype)
    module.controlnet_cond_embedding.__class__ = RememberedHint
    pools = _POOLING in file.name.lower() and base.vector_width is None
    return LoadedControlNet(module, pools)


def controlnet_config(shape: ControlNetShape, base: BaseModel) -> dict[str, Any]:
    """Keyword arguments for `ControlNetModel`."""
    config = encoder_config(shape.encoder, base.heads)
    if not shape.encoder.middle_depth:
        config["mid_block_type"] = "UNetMidBlock2D"
    if not shape.encoder.context_width:
        config["cross_attention_dim"] = base.context_width
    return config | {
        "conditioning_channels": shape.hint_channels,
        "conditioning_embedding_out_channels": shape.hint_widths,
    }
