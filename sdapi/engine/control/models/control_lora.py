"""Control-LoRA: a ControlNet told as low-rank differences from the checkpoint it is used with.

The file has its own convolutions and whatever layers differ wholly; all else is the checkpoint's
encoder, LoRAs that are merged into it included. For the time of a sampler run the layers here have
the checkpoint's weights: its own tensors, or copies where those are elsewhere or of another type.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from sdapi.engine.checkpoints.unet_keys import UNetShape, encoder_config, key_table
from sdapi.engine.control.control import Control, LoadedControl
from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import ControlFile
from sdapi.engine.control.models.controlnet import ControlNetControl, RememberedHint
from sdapi.engine.control.models.controlnet_keys import hint_widths, own_names
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.weights.state_dict import StateDict
from sdapi.engine.weights.tensor_bytes import module_bytes
from sdapi.errors import ModelUnusable

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

_MARK = "lora_controlnet"
_OWN = ("controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block")


class _LowRank(nn.Module):
    """A layer of the checkpoint and a difference of low rank beside it."""

    def __init__(self, layer: Any, up: Tensor, down: Tensor, bias: Tensor | None) -> None:
        """`layer` is such as the checkpoint's, without weights."""
        super().__init__()
        self.up, self.down = _kept(up), _kept(down)
        self.bias = None if bias is None else _kept(bias)
        self._stride, self._padding = getattr(layer, "stride", 1), getattr(layer, "padding", 0)
        #: the checkpoint's weight and bias; in a tuple, so that they are no part of this module
        self._base: tuple[Tensor | None, ...] = ()

    def bind(self, weight: Tensor, bias: Tensor | None) -> None:
        """Stand beside a layer's weights."""
        self._base = weight, bias

    def release(self) -> None:
        """Stand beside none."""
        self._base = ()

    @property
    def _weights(self) -> tuple[Any, Tensor | None]:
        weight, bias = self._base
        return weight, bias if self.bias is None else self.bias


class LowRankLinear(_LowRank):
    """A linear layer [out, in]: up [out, r], down [r, in]."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        through = F.linear(F.linear(x, self.down.flatten(1)), self.up.flatten(1))
        return F.linear(x, *self._weights) + through


class LowRankConv(_LowRank):
    """A convolution: the kernel's difference is up [out, r] times down [r, in * k * k]."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        weight, bias = self._weights
        weight = weight + (self.up.flatten(1) @ self.down.flatten(1)).view_as(weight)
        return F.conv2d(x, weight, bias, self._stride, self._padding)


@dataclass(slots=True)
class LoadedControlLora(LoadedControl):
    """A Control-LoRA in memory: what its file holds, and no checkpoint's weights."""

    module: ControlNetModel
    #: parameters that are the checkpoint's, as (module, parameter)
    shared: tuple[tuple[str, str], ...]

    @property
    def size_bytes(self) -> int:
        return module_bytes(self.module)

    def move(self, device: torch.device) -> None:
        # Not by `to`, which cannot move what has no values.
        for module in self.module.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if not parameter.is_meta:
                    setattr(module, name, _kept(parameter.to(device)))

    def control(self, unit: ControlUnit, sampling: "SamplingPass") -> Control:
        unet, latents = sampling.components.unet, sampling.components.latent_channels
        if unet.config["in_channels"] != latents:
            raise ModelUnusable("a Control-LoRA works on no inpainting or pix2pix checkpoint")
        self.bind(unet, sampling.models.device, sampling.models.precision.control)
        try:
            return ControlLoraControl(self, unit, sampling)
        except BaseException:
            self.release()
            raise

    def bind(self, unet: UNet2DConditionModel, device: torch.device, dtype: torch.dtype) -> None:
        """Take a checkpoint's encoder for what the file lacks.

        An offloaded one is elsewhere, and of another type with `--no-half-controlnet`.
        """

        def taken(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device, dtype)

        for name, module in self.module.named_modules():
            if isinstance(module, _LowRank):
                theirs: Any = unet.get_submodule(name)
                bias = theirs.bias
                module.bind(taken(theirs.weight), None if bias is None else taken(bias))
        for name, leaf in self.shared:
            theirs = unet.get_submodule(name).get_parameter(leaf)
            setattr(self.module.get_submodule(name), leaf, _kept(taken(theirs)))

    def release(self) -> None:
        """Have nothing of a checkpoint, so that it can go."""
        for module in self.module.modules():
            if isinstance(module, _LowRank):
                module.release()
        for name, leaf in self.shared:
            module = self.module.get_submodule(name)
            empty = torch.empty_like(module.get_parameter(leaf), device="meta")
            setattr(module, leaf, _kept(empty))


class ControlLoraControl(ControlNetControl):
    """A Control-LoRA during one sampler run: a ControlNet on the run's own checkpoint."""

    def __init__(
        self, model: LoadedControlLora, unit: ControlUnit, sampling: "SamplingPass"
    ) -> None:
        super().__init__(model.module, unit, sampling)
        self._model = model

    def close(self) -> None:
        super().close()
        self._model.release()


def load_control_lora(file: ControlFile, base: BaseModel) -> LoadedControl:
    """Build a Control-LoRA from its weights; raises `ModelUnusable`."""
    shape = base.encoder
    weights = _under_our_names(file, shape)
    first = weights["controlnet_cond_embedding.conv_in.weight"]
    with init_empty_weights(include_buffers=False):
        module = ControlNetModel(
            **encoder_config(shape, base.heads),
            conditioning_channels=first.shape[1],
            conditioning_embedding_out_channels=hint_widths(file.weights),
        )
    _put_low_rank(module, weights, file.name, base.dtype)
    _check(module, weights, file.name)
    taken = {key: _kept(tensor.to(base.dtype)) for key, tensor in weights.items()}
    module.load_state_dict(taken, strict=False, assign=True)
    module.requires_grad_(False).eval()
    module.controlnet_cond_embedding.__class__ = RememberedHint
    return LoadedControlLora(module, tuple(_missing(module)))


def _under_our_names(file: ControlFile, shape: UNetShape) -> StateDict:
    """The file's weights under diffusers' names; raises `ModelUnusable` without a way in."""
    table = key_table(shape) | own_names(file.weights)
    renamed: StateDict = {}
    for key, tensor in file.weights.items():
        if key != _MARK:
            module, _, leaf = key.rpartition(".")
            renamed[f"{table.get(module, module)}.{leaf}"] = tensor
    return renamed


def _put_low_rank(
    module: ControlNetModel, weights: StateDict, name: str, dtype: torch.dtype
) -> None:
    """Replace the layers that have a difference, and take that from `weights`."""
    for key in [key for key in weights if key.endswith(".up")]:
        place = key.removesuffix(".up")
        try:
            layer, down = module.get_submodule(place), weights.pop(f"{place}.down")
        except (AttributeError, KeyError) as error:
            raise ModelUnusable(f"{name}: {key!r} fits no layer of this checkpoint") from error
        up, bias = weights.pop(key), weights.pop(f"{place}.bias", None)
        kind = LowRankConv if isinstance(layer, nn.Conv2d) else LowRankLinear
        expected = layer.get_parameter("weight").shape
        if (up.shape[0], down.flatten(1).shape[1]) != (expected[0], expected[1:].numel()):
            raise ModelUnusable(
                f"{name}: {place!r} is made for another checkpoint: {list(up.shape)} by "
                f"{list(down.shape)} is no {list(expected)}"
            )
        parent, _, leaf = place.rpartition(".")
        new = kind(layer, up.to(dtype), down.to(dtype), None if bias is None else bias.to(dtype))
        setattr(module.get_submodule(parent), leaf, new)


def _check(module: ControlNetModel, weights: Mapping[str, Tensor], name: str) -> None:
    expected = module.state_dict()
    for key, tensor in weights.items():
        if key not in expected:
            raise ModelUnusable(f"{name} has weights too many, such as {key!r}")
        if tensor.shape != expected[key].shape:
            raise ModelUnusable(
                f"{name}: {key!r} has shape {list(tensor.shape)}, expected "
                f"{list(expected[key].shape)}"
            )
    for key in expected:
        if key.startswith(_OWN) and key not in weights:
            raise ModelUnusable(f"{name} lacks {key!r}")


def _missing(module: ControlNetModel) -> Iterator[tuple[str, str]]:
    """What the file did not hold: the checkpoint's."""
    for key, parameter in module.named_parameters():
        if parameter.is_meta:
            place, _, leaf = key.rpartition(".")
            yield place, leaf


def _kept(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
