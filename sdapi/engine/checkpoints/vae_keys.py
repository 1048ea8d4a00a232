"""A checkpoint file's VAE: its shape, read from the weights, and its keys in diffusers' terms."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sdapi.errors import ModelUnusable

PREFIX = "first_stage_model."
#: Trained beside the VAE, not part of it (contract: webui-generation 13.2).
IGNORED_PREFIXES = ("loss.", "model_ema.")
_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}


@dataclass(frozen=True, slots=True)
class VAEShape:
    """What the weights tell about a VAE; `channels` from the finest resolution to the coarsest."""

    channels: tuple[int, ...]
    resnets: int
    latent_channels: int
    has_quant_conv: bool


def read_shape(weights: dict[str, Tensor]) -> VAEShape:
    """Read a VAE's shape from its weights, keys without the `first_stage_model.` prefix.

    Raises `ModelUnusable` when a part every VAE has is missing.
    """
    try:
        channels: list[int] = []
        while (
            conv := weights.get(f"encoder.down.{len(channels)}.block.0.conv1.weight")
        ) is not None:
            channels.append(conv.shape[0])
        resnets = 0
        while f"encoder.down.0.block.{resnets}.conv1.weight" in weights:
            resnets += 1
        if not channels:
            raise KeyError("encoder.down.0.block.0.conv1.weight")
        latent = weights["decoder.conv_in.weight"].shape[1]
        return VAEShape(tuple(channels), resnets, latent, "quant_conv.weight" in weights)
    except KeyError as error:
        raise ModelUnusable(f"the VAE has no {error}") from error


def diffusers_config(shape: VAEShape, scale_factor: float) -> dict[str, Any]:
    """Keyword arguments for `AutoencoderKL`."""
    levels = len(shape.channels)
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": shape.channels,
        "layers_per_block": shape.resnets,
        "latent_channels": shape.latent_channels,
        "scaling_factor": scale_factor,
        "use_quant_conv": shape.has_quant_conv,
        "use_post_quant_conv": shape.has_quant_conv,
    }


def key_table(shape: VAEShape) -> dict[str, str]:
    """Module names: original layout -> diffusers, without `.weight` and `.bias`."""
    return dict(_pairs(shape))


def _pairs(shape: VAEShape) -> Iterator[tuple[str, str]]:
    levels = len(shape.channels)
    yield "quant_conv", "quant_conv"
    yield "post_quant_conv", "post_quant_conv"
    for side in ("encoder", "decoder"):
        for name in ("conv_in", "conv_out"):
            yield f"{side}.{name}", f"{side}.{name}"
        yield f"{side}.norm_out", f"{side}.conv_norm_out"
        yield from _resnet(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0")
        yield from _resnet(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1")
        for original, ours in _ATTENTION.items():
            yield f"{side}.mid.attn_1.{original}", f"{side}.mid_block.attentions.0.{ours}"
    for level in range(levels):
        down, up = f"encoder.down.{level}", f"decoder.up.{level}"
        # diffusers counts the decoder's resolutions as they run, the original from fine to coarse.
        down_block = f"encoder.down_blocks.{level}"
        up_block = f"decoder.up_blocks.{levels - 1 - level}"
        for index in range(shape.resnets):
            yield from _resnet(f"{down}.block.{index}", f"{down_block}.resnets.{index}")
        for index in range(shape.resnets + 1):
            yield from _resnet(f"{up}.block.{index}", f"{up_block}.resnets.{index}")
        yield f"{down}.downsample.conv", f"{down_block}.downsamplers.0.conv"
        yield f"{up}.upsample.conv", f"{up_block}.upsamplers.0.conv"


def _resnet(block: str, module: str) -> Iterator[tuple[str, str]]:
    for name in ("norm1", "conv1", "norm2", "conv2"):
        yield f"{block}.{name}", f"{module}.{name}"
    yield f"{block}.nin_shortcut", f"{module}.conv_shortcut"
