"""LoRA layers by peft, on copies of a checkpoint's networks that share its weights.

The copies are modules of their own around the same parameters: no memory is spent twice, and the
networks that draw are never touched. The weights are frozen, so they stay what they are.
"""

from collections.abc import Generator, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.networks.layer_index import original_names
from sdapi.engine.text.encoding.text_encoder import TextEncoder
from sdapi.engine.training.job import LoraShape

_ADAPTER = "default"
#: what kohya's programs train besides transformers when they are given a `conv_dim`
_CONVOLUTION_BLOCKS = (ResnetBlock2D, Downsample2D, Upsample2D)
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class AdapterLayer:
    """One layer's LoRA under the name that kohya's programs give it."""

    name: str
    #: [rank, in, …] and [out, rank, …], float32
    down: nn.Parameter
    up: nn.Parameter
    alpha: float
    is_text: bool


@dataclass(frozen=True, slots=True)
class Adapted:
    """A checkpoint with LoRA layers: `components` holds the copies, the VAE is the cached one."""

    components: Components
    layers: tuple[AdapterLayer, ...]

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.components.unet

    def parameters(self, *, of_text: bool) -> list[nn.Parameter]:
        """What is trained, of the text encoders or of the UNet."""
        return [p for layer in self.layers if layer.is_text == of_text for p in _both(layer)]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every trained tensor by a name of its own."""
        named: dict[str, Tensor] = {}
        for layer in self.layers:
            named[f"{layer.name}.down"], named[f"{layer.name}.up"] = layer.down, layer.up
        return named


def adapt(components: Components, shape: LoraShape, seed: int, *, checkpoints: bool) -> Adapted:
    """Copy the networks and give them LoRA layers: down uniform (He et al. 2015), up zero.

    With `checkpoints` activations are computed anew for the gradients instead of being kept.
    """
    unet = sharing_copy(components.unet)
    encoders = components.text_encoders
    if shape.has_text:
        encoders = tuple(replace(each, model=sharing_copy(each.model)) for each in encoders)
    with torch.random.fork_rng(devices=_cuda_devices(unet)):
        torch.manual_seed(seed)
        layers = list(_adapt_unet(unet, components, shape))
        for number, encoder in enumerate(encoders if shape.has_text else ()):
            prefix = _text_prefix(components.family, number)
            layers += _adapt_text(encoder, prefix, shape)
    if checkpoints:
        unet.enable_gradient_checkpointing()
        for encoder in encoders if shape.has_text else ():
            encoder.model.gradient_checkpointing_enable()
            encoder.model.train()  # transformers heeds it in training mode only
    adapted = replace(components, unet=unet, text_encoders=encoders)
    return Adapted(adapted, tuple(layers))


def sharing_copy(module: Module) -> Module:
    """A module of its own with the same parameters and buffers.

    Hooks come along (transformers collects hidden states by them), so no job may run meanwhile.
    """
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return deepcopy(module, cast("dict[int, object]", shared))


def _adapt_unet(
    unet: UNet2DConditionModel, components: Components, shape: LoraShape
) -> Iterator[AdapterLayer]:
    """Every linear layer and convolution of the transformer blocks (contract 2.3).

    With `has_convolutions` those of residual and resampling blocks too, which goes beyond it.
    """
    kinds = (Transformer2DModel, *(_CONVOLUTION_BLOCKS if shape.has_convolutions else ()))
    found = {
        f"{path}.{name}": layer
        for path, block in unet.named_modules()
        if isinstance(block, kinds)
        for name, layer in block.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    names = {path: path for path in found}
    if components.family is Family.SDXL:  # kohya's files for SDXL keep the original's names
        originals = {ours: theirs for theirs, ours in original_names(unet).items()}
        names = {path: originals[path] for path in found}
    inject(unet, found, shape)
    for path in found:
        name = "lora_unet_" + names[path].replace(".", "_")
        yield _layer(unet, path, name, is_text=False)


def _adapt_text(encoder: TextEncoder, prefix: str, shape: LoraShape) -> Iterator[AdapterLayer]:
    """Every linear layer of attention and MLP."""
    found = {
        path: layer
        for path, layer in encoder.model.named_modules()
        if isinstance(layer, nn.Linear) and "encoder.layers." in path
    }
    inject(encoder.model, found, shape)
    for path in found:
        bare = path.removeprefix("text_model.").replace(".", "_")
        yield _layer(encoder.model, path, f"{prefix}text_model_{bare}", is_text=True)


def inject(module: nn.Module, found: Mapping[str, nn.Module], shape: LoraShape) -> None:
    """Put peft's LoRA layers, float32, around the layers found."""
    ranks = {
        path: min(shape.rank, max(min(_sides(layer)) // 2, 1)) for path, layer in found.items()
    }
    smaller = {path: rank for path, rank in ranks.items() if rank != shape.rank}
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=cast("int", shape.alpha),  # peft says int, and divides it
        target_modules=list(found),
        rank_pattern=dict(smaller),
        alpha_pattern={path: shape.alpha * rank / shape.rank for path, rank in smaller.items()},
    )
    inject_adapter_in_model(config, module)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _layer(module: nn.Module, path: str, name: str, *, is_text: bool) -> AdapterLayer:
    layer = module.get_submodule(path)
    assert isinstance(layer, LoraLayer)
    down, up = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
    alpha = float(layer.lora_alpha[_ADAPTER])
    return AdapterLayer(
        name, cast("nn.Parameter", down), cast("nn.Parameter", up), alpha, is_text=is_text
    )


def _both(layer: AdapterLayer) -> Generator[nn.Parameter]:
    yield layer.down
    yield layer.up


def _sides(layer: nn.Module) -> tuple[int, int]:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0], weight.shape[1]


def _text_prefix(family: Family, number: int) -> str:
    return f"lora_te{number + 1}_" if family is Family.SDXL else "lora_te_"


def _cuda_devices(module: nn.Module) -> list[int]:
    device = next(module.parameters()).device
    return [device.index or 0] if device.type == "cuda" else []
