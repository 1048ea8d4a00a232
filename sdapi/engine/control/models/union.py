"""ControlNet Union: one model for many kinds of maps, told which one it is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from accelerate import init_empty_weights
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from torch import Tensor

from sdapi.engine.checkpoints.unet_keys import encoder_config
from sdapi.engine.control.control import Control, LoadedControl, LoadedModule
from sdapi.engine.control.hints import hint_tensor
from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import ControlFile
from sdapi.engine.control.models.controlnet import RememberedHint, hint_reader
from sdapi.engine.control.models.controlnet_keys import read_diffusers
from sdapi.engine.control.models.residuals import EncoderInputs, ResidualControl
from sdapi.engine.control.models.weighting import control_scales
from sdapi.engine.control.unit import UNION_TYPES, ControlUnit
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.weights.assigning import assign
from sdapi.errors import BadRequest, ModelUnusable

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass


@dataclass(slots=True)
class LoadedUnion(LoadedModule[ControlNetUnionModel]):
    """A union model in memory."""

    #: how many kinds of maps it knows
    types: int

    def control(self, unit: ControlUnit, sampling: "SamplingPass") -> Control:
        known = UNION_TYPES[: self.types]
        if unit.union_type is None or unit.union_type >= self.types:
            asked = "nothing" if unit.union_type is None else UNION_TYPES[unit.union_type]
            raise BadRequest(
                f"{unit.label}: union_control_type says {asked}, and module {unit.module!r} does "
                f"not tell; this model knows {', '.join(known)}"
            )
        return UnionControl(self, unit, unit.union_type, sampling)


class UnionControl(ResidualControl):
    """A union model during one sampler run."""

    def __init__(
        self, model: LoadedUnion, unit: ControlUnit, task: int, sampling: "SamplingPass"
    ) -> None:
        module, is_second = model.module, sampling.is_second
        scales = control_scales(
            unit, len(module.controlnet_down_blocks) + 1, is_second_pass=is_second
        )
        super().__init__(unit, sampling, scales)
        self._module = module
        self._task = task
        self._types = model.types
        pixels = unit.hint_for(is_second_pass=is_second)
        self._hint = hint_tensor(pixels, sampling.models.device, module.dtype)
        #: the picture for a number of rows; the same object every time, so that it is read once
        self._hints: dict[int, Tensor] = {}

    def residuals(self, call: UNetCall, rows: Sequence[int]) -> Sequence[Tensor]:
        inputs, count = EncoderInputs.of(call, rows, self._module.dtype), len(rows)
        if count not in self._hints:
            self._hints[count] = self._hint.expand(count, -1, -1, -1)
        chosen = self._row_tensors.of([self._task] * count, inputs.x.device)
        down, middle = self._module(
            inputs.x,
            inputs.t,
            encoder_hidden_states=inputs.cross,
            controlnet_cond=[self._hints[count]],
            control_type=F.one_hot(chosen, self._types).to(inputs.x.dtype),
            control_type_idx=[self._task],
            added_cond_kwargs=inputs.added,
            return_dict=False,
        )
        return [*down, middle]

    def close(self) -> None:
        hint_reader(self._module).forget()


def load_union(file: ControlFile, base: BaseModel) -> LoadedControl:
    """Build a union model from its weights; raises `ModelUnusable`."""
    weights = file.weights
    shape = read_diffusers(weights)
    base.check(file.name, shape.encoder)
    try:
        types, width = weights["task_embedding"].shape
        projected = weights["spatial_ch_projs.weight"].shape[0]
        told = weights["control_add_embedding.linear_1.weight"].shape[1] // types
    except (KeyError, ValueError) as error:
        raise ModelUnusable(f"the union model has no usable {error}") from error
    if types > len(UNION_TYPES):
        raise ModelUnusable(f"the union model knows {types} kinds of maps; at most 8 are known")
    layers = 0
    while f"transformer_layes.{layers}.ln_1.weight" in weights:
        layers += 1
    config = encoder_config(shape.encoder, base.heads)
    config["addition_time_embed_dim"] = told
    with init_empty_weights(include_buffers=False):
        module = ControlNetUnionModel(
            **config,
            conditioning_channels=shape.hint_channels,
            conditioning_embedding_out_channels=shape.hint_widths,
            num_control_type=types,
            num_trans_channel=width,
            num_trans_layer=layers,
            num_proj_channel=projected,
        )
    assign(module, weights, file.name, base.dtype)
    module.controlnet_cond_embedding.__class__ = RememberedHint
    return LoadedUnion(module, types)
