"""Attention in float32 in a half-precision UNet (option `upcast_attn`)."""

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from sdapi.engine.adaptations.hooks import Before, Hooks


def upcast_attention(hooks: Hooks, unet: nn.Module) -> None:
    """Let queries, keys and values meet in float32; what leaves is the UNet's own type again."""
    for layer in unet.modules():
        if not isinstance(layer, Attention):
            continue
        for name in ("to_q", "to_k", "to_v"):
            hooks.after(layer.get_submodule(name), torch.Tensor.float)
        out = layer.get_submodule("to_out.0")
        hooks.before(out, _as_weight(out))


def _as_weight(layer: nn.Module) -> Before:
    def change(x: Tensor) -> Tensor:
        return x.to(layer.get_parameter("weight").dtype)

    return change
