"""Which kind of model a checkpoint file holds, told from its keys and from a sidecar `.yaml`."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from sdapi.errors import ModelUnusable

#: Every published model of these families keeps 1/std of its latents here.
SD_SCALE_FACTOR = 0.18215
SDXL_SCALE_FACTOR = 0.13025
HEAD_WIDTH = 64
SD1_HEADS = 8

_OPENAI_TEXT = "cond_stage_model.transformer."
_OPENCLIP_TEXT = "cond_stage_model.model."
_SDXL_TEXT = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
_SDXL_REFINER = "conditioner.embedders.0.model."
_UNSUPPORTED = {
    "model.diffusion_model.x_embedder.proj.weight": "Stable Diffusion 3",
    "model.diffusion_model.double_blocks.0.img_attn.qkv.weight": "FLUX",
    "depth_model.model.pretrained.cls_token": "depth-conditioned Stable Diffusion 2",
    "embedder.model.visual.class_embedding": "unCLIP",
}


class Family(StrEnum):
    """Families that differ in text encoding and conditioning."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a `name.yaml` beside a checkpoint says; None where it is silent."""

    scale_factor: float | None = None
    linear_start: float = 0.00085
    linear_end: float = 0.012
    v_prediction: bool | None = None
    num_heads: int | None = None
    head_channels: int | None = None
    #: entries of a CLIP text configuration that override what the weights tell
    #: (our extension of the format)
    text_config: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Architecture:
    """A family with the places of its text encoders in the file."""

    family: Family
    text_prefixes: tuple[str, ...]
    default_scale_factor: float


def identify(weights: dict[str, Tensor]) -> Architecture:
    """Tell the family from the keys (contract: webui-generation 13.1).

    Raises `ModelUnusable` for what is no Stable Diffusion checkpoint, or one of a kind that is not
    supported.
    """
    for key, name in _UNSUPPORTED.items():
        if key in weights:
            raise ModelUnusable(f"a {name} model, which is not supported")

    def has(prefix: str) -> bool:
        return any(key.startswith(prefix) for key in weights)

    if all(has(prefix) for prefix in _SDXL_TEXT):
        return Architecture(Family.SDXL, _SDXL_TEXT, SDXL_SCALE_FACTOR)
    if has(_SDXL_REFINER):
        raise ModelUnusable(
            "SDXL's refiner, which is not supported; any SD or SDXL checkpoint can refine"
        )
    if has(_OPENCLIP_TEXT):
        return Architecture(Family.SD2, (_OPENCLIP_TEXT,), SD_SCALE_FACTOR)
    if has(_OPENAI_TEXT):
        return Architecture(Family.SD1, (_OPENAI_TEXT,), SD_SCALE_FACTOR)
    raise ModelUnusable("no Stable Diffusion checkpoint: it holds no text encoder")


def head_counts(family: Family, channels: tuple[int, ...], sidecar: Sidecar) -> tuple[int, ...]:
    """Attention heads at each resolution; the weights cannot tell them."""
    if sidecar.head_channels:
        return tuple(c // sidecar.head_channels for c in channels)
    if sidecar.num_heads:
        return (sidecar.num_heads,) * len(channels)
    if family is Family.SD1:
        return (SD1_HEADS,) * len(channels)
    return tuple(max(c // HEAD_WIDTH, 1) for c in channels)


def read_sidecar(path: Path | None) -> Sidecar:
    """Read a sidecar `.yaml`; None gives the defaults.

    Raises `ModelUnusable` when it is no YAML mapping.
    """
    if path is None:
        return Sidecar()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelUnusable(f"{path.name}: no readable YAML ({type(error).__name__})") from error
    params = _dig(content, "model", "params")
    unet = _dig(params, "unet_config", "params") or _dig(params, "network_config", "params")
    text = _dig(params, "cond_stage_config", "params")
    heads, width = unet.get("num_heads"), unet.get("num_head_channels")
    kind = params.get("parameterization")
    try:
        return Sidecar(
            scale_factor=_number(params.get("scale_factor")),
            linear_start=_number(params.get("linear_start")) or 0.00085,
            linear_end=_number(params.get("linear_end")) or 0.012,
            v_prediction=None if kind is None else kind == "v",
            num_heads=int(heads) if heads and int(heads) > 0 else None,
            head_channels=int(width) if width and int(width) > 0 else None,
            text_config=dict(_dig(text, "text_config")),
        )
    except (TypeError, ValueError) as error:
        raise ModelUnusable(f"{path.name}: {error}") from error


def _dig(content: object, *keys: str) -> dict[str, Any]:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _number(value: object) -> float | None:
    return None if value is None else float(str(value))
