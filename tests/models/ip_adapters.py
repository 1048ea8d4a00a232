"""Tiny image encoders and IP-Adapters of random weights, in the layouts that users have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

State = dict[str, Tensor]

#: of the tiny encoder: sides of a picture, width of its patches' vectors, of its embedding
SIDE, WIDTH, POOLED = 28, 32, 24
_TOKENS, _HEAD = 4, 64


def save_image_encoder(path: Path, seed: int = 0, pooled: int = POOLED) -> Path:
    """CLIP's image encoder in transformers' form, with the sixteen heads of the published ones."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=16,
        projection_dim=pooled,
        image_size=SIDE,
        patch_size=14,
        hidden_act="gelu",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    state = CLIPVisionModelWithProjection(config).state_dict()
    # Random weights of transformers' own scale make every picture look the same.
    state = {k: v * 10 if k.endswith("weight") and v.ndim > 1 else v for k, v in state.items()}
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    return path


def plain_projection(context: int) -> State:
    """Four tokens of a linear layer."""
    return _of(nn.Linear(POOLED, _TOKENS * context), "proj") | _of(nn.LayerNorm(context), "norm")


def full_projection(context: int) -> State:
    """A token for every patch."""
    first, last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, context)
    return _of(first, "proj.0") | _of(last, "proj.2") | _of(nn.LayerNorm(context), "proj.3")


def plus_projection(context: int) -> State:
    """A resampler, by the names of the code that it was published with."""
    state: State = {"latents": torch.randn(1, _TOKENS, _HEAD) / 8}
    state |= _of(nn.Linear(WIDTH, _HEAD), "proj_in") | _of(nn.Linear(_HEAD, context), "proj_out")
    state |= _of(nn.LayerNorm(context), "norm_out")
    for i in range(4):
        for name in ("0.norm1", "0.norm2", "1.0"):
            state |= _of(nn.LayerNorm(_HEAD), f"layers.{i}.{name}")
        shapes = {"0.to_q": (64, 64), "0.to_kv": (64, 128), "0.to_out": (64, 64)}
        for name, (into, out) in (shapes | {"1.1": (64, 256), "1.3": (256, 64)}).items():
            state |= _of(nn.Linear(into, out, bias=False), f"layers.{i}.{name}")
    return state


def ip_adapter(unet: Any, projection: Callable[[int], State], seed: int = 0) -> dict[str, State]:
    """The two parts of an adapter for a UNet; its layers have the odd numbers."""
    torch.manual_seed(seed)
    context = int(unet.config.cross_attention_dim)
    layers: State = {}
    for number, name in enumerate(n for n in unet.attn_processors if n.endswith("attn2.processor")):
        inner = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
        for part in ("k", "v"):
            layers[f"{2 * number + 1}.to_{part}_ip.weight"] = torch.randn(inner, context) / 4
    return {"image_proj": projection(context), "ip_adapter": layers}


def save_ip_adapter(parts: dict[str, State], path: Path) -> Path:
    """As `.safetensors` with prefixed names, or as the nested pickle of older files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        flat = {f"{part}.{key}": v for part, state in parts.items() for key, v in state.items()}
        save_file({key: value.detach().contiguous() for key, value in flat.items()}, path)
    else:
        torch.save(parts, path)
    return path


def _of(module: nn.Module, name: str) -> State:
    return {f"{name}.{key}": value.detach() for key, value in module.state_dict().items()}
