"""The part of an IP-Adapter that makes tokens of an embedding: diffusers' modules, by its keys.

Published files have the names of the original code, which are renamed here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import torch
from accelerate import init_empty_weights
from diffusers.models.embeddings import (
    ImageProjection,
    IPAdapterFullImageProjection,
    IPAdapterPlusImageProjection,
)
from torch import nn

from sdapi.engine.control.models.control_file import fitting_together
from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.state_dict import StateDict
from sdapi.errors import ModelUnusable

_HEAD_WIDTH: Final = 64
_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)")
#: names inside of a resampler's layer
_LAYER_NAMES: Final = {
    "0.norm1": "ln0",
    "0.norm2": "ln1",
    "0.to_q": "attn.to_q",
    "0.to_out": "attn.to_out.0",
    "1.0": "ff.0",
    "1.1": "ff.1.net.0.proj",
    "1.3": "ff.1.net.2",
}


class Reads(Enum):
    """What of an image encoder's answer a projection reads."""

    #: the picture's embedding, which text embeddings can be compared with
    POOLED = "pooled"
    #: a vector for each patch, from the last layer but one
    PATCHES = "patches"


@dataclass(frozen=True, slots=True)
class Projection:
    """A projection with its weights."""

    module: nn.Module
    reads: Reads
    #: of the embedding, as the image encoder must have it
    width: int


_Build = Callable[[StateDict], tuple[Projection, StateDict]]


def load_projection(weights: StateDict, name: str, dtype: torch.dtype) -> Projection:
    """The projection of a file's `image_proj` part; raises `ModelUnusable`."""
    if "proj.2.weight" in weights and "norm.weight" in weights:
        raise ModelUnusable(f"{name}: FaceID adapters are not supported")
    kinds: tuple[tuple[str, _Build], ...] = (
        ("proj.weight", _plain),
        ("proj.3.weight", _full),
        ("latents", _plus),
    )
    for key, build in kinds:
        if key in weights:
            with fitting_together(f"{name}: image_proj"), init_empty_weights(include_buffers=False):
                projection, renamed = build(weights)
            assign(projection.module, renamed, f"{name}: image_proj", dtype)
            return projection
    raise ModelUnusable(f"{name}: its image_proj is of no known kind")


def _plain(weights: StateDict) -> tuple[Projection, StateDict]:
    context = weights["norm.weight"].shape[0]
    out, width = weights["proj.weight"].shape
    module = ImageProjection(width, context, num_image_text_embeds=out // context)
    renamed = {key.replace("proj.", "image_embeds."): value for key, value in weights.items()}
    return Projection(module, Reads.POOLED, width), renamed


def _full(weights: StateDict) -> tuple[Projection, StateDict]:
    width, context = weights["proj.0.weight"].shape[0], weights["proj.3.weight"].shape[0]
    names = {"proj.0": "ff.net.0.proj", "proj.2": "ff.net.2", "proj.3": "norm"}
    renamed: StateDict = {}
    for key, value in weights.items():
        part, _, leaf = key.rpartition(".")
        renamed[f"{names.get(part, part)}.{leaf}"] = value
    module = IPAdapterFullImageProjection(image_embed_dim=width, cross_attention_dim=context)
    return Projection(module, Reads.PATCHES, width), renamed


def _plus(weights: StateDict) -> tuple[Projection, StateDict]:
    renamed = _resampler(weights)
    hidden, width = weights["proj_in.weight"].shape
    layers = {match[1] for key in weights if (match := _LAYER.fullmatch(key))}
    module = IPAdapterPlusImageProjection(
        embed_dims=width,
        output_dims=weights["proj_out.weight"].shape[0],
        hidden_dims=hidden,
        depth=len(layers),
        heads=weights["layers.0.0.to_q.weight"].shape[0] // _HEAD_WIDTH,
        num_queries=weights["latents"].shape[1],
        ffn_ratio=weights["layers.0.1.1.weight"].shape[0] / hidden,
    )
    return Projection(module, Reads.PATCHES, width), renamed


def _resampler(weights: StateDict) -> StateDict:
    """A resampler under diffusers' names; keys and values become two."""
    renamed: StateDict = {}
    for key, value in weights.items():
        match = _LAYER.fullmatch(key)
        if match is None:
            renamed[key] = value
        elif match[2] == "0.to_kv":
            for part, half in zip(("to_k", "to_v"), value.chunk(2), strict=True):
                renamed[f"layers.{match[1]}.attn.{part}.{match[3]}"] = half
        else:
            name = _LAYER_NAMES.get(match[2], match[2])
            renamed[f"layers.{match[1]}.{name}.{match[3]}"] = value
    return renamed
