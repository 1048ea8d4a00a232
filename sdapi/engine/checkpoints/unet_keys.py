"""A checkpoint file's UNet: its shape, read from the weights, and its keys in diffusers' terms.

The original layout numbers all input, middle and output blocks in one list; diffusers groups them
by resolution. Both name the same weights, so a table from one name to the other is all that loading
takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sdapi.errors import ModelUnusable

PREFIX = "model.diffusion_model."
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


@dataclass(frozen=True, slots=True)
class UNetShape:
    """What the weights tell about a UNet; one entry per resolution in the tuples."""

    in_channels: int
    #: None for the encoder alone, of which ControlNets are copies
    out_channels: int | None
    channels: tuple[int, ...]
    resnets: int
    #: transformer blocks at each resolution, 0 where there is no attention
    transformer_depth: tuple[int, ...]
    middle_depth: int
    context_width: int
    linear_projection: bool
    #: width of the extra vector of SDXL (pooled text and sizes), None without one
    vector_width: int | None


def read_shape(weights: dict[str, Tensor]) -> UNetShape:
    """Read a UNet's shape from its weights, keys without the `model.diffusion_model.` prefix.

    Raises `ModelUnusable` when a part every UNet has is missing.
    """
    try:
        channels, depths, resnets = _read_input_blocks(weights)
        context = next(v.shape[1] for k, v in weights.items() if k.endswith("attn2.to_k.weight"))
        projection = next(v for k, v in weights.items() if k.endswith(".proj_in.weight"))
        label = weights.get("label_emb.0.0.weight")
        output = weights.get("out.2.weight")
        return UNetShape(
            in_channels=weights["input_blocks.0.0.weight"].shape[1],
            out_channels=None if output is None else output.shape[0],
            channels=tuple(channels),
            resnets=resnets,
            transformer_depth=tuple(depths),
            middle_depth=_depth(weights, "middle_block.1"),
            context_width=context,
            linear_projection=projection.ndim == 2,
            vector_width=None if label is None else label.shape[1],
        )
    except (KeyError, StopIteration) as error:
        raise ModelUnusable(f"the UNet has no {error or 'attention'}") from error


def _depth(weights: dict[str, Tensor], block: str) -> int:
    depth = 0
    while f"{block}.transformer_blocks.{depth}.norm1.weight" in weights:
        depth += 1
    return depth


def _read_input_blocks(weights: dict[str, Tensor]) -> tuple[list[int], list[int], int]:
    channels, depths, counts, level_open = [0], [0], [0], True
    number = 1
    while True:
        block = f"input_blocks.{number}"
        if f"{block}.0.op.weight" in weights:
            channels.append(0)
            depths.append(0)
            counts.append(0)
        elif (conv := weights.get(f"{block}.0.in_layers.2.weight")) is not None:
            channels[-1] = conv.shape[0]
            depths[-1] = _depth(weights, f"{block}.1")
            counts[-1] += 1
        else:
            break
        number += 1
        level_open = False
    if level_open or len(set(counts)) != 1:
        raise KeyError("regular input blocks")
    return channels, depths, counts[0]


def diffusers_config(shape: UNetShape, heads: tuple[int, ...], sample_size: int) -> dict[str, Any]:
    """Keyword arguments for `UNet2DConditionModel`; `heads` per resolution.

    Raises `ModelUnusable` for the encoder alone.
    """
    if shape.out_channels is None:
        raise ModelUnusable("the UNet has no output layer")
    attends = [depth > 0 for depth in shape.transformer_depth]
    up = tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends))
    return encoder_config(shape, heads) | {
        "sample_size": sample_size,
        "out_channels": shape.out_channels,
        "up_block_types": up,
    }


def encoder_config(shape: UNetShape, heads: tuple[int, ...]) -> dict[str, Any]:
    """The keyword arguments that a UNet's encoder alone takes, too."""
    levels = len(shape.channels)
    down = tuple(
        "CrossAttnDownBlock2D" if depth > 0 else "DownBlock2D" for depth in shape.transformer_depth
    )
    config: dict[str, Any] = {
        "in_channels": shape.in_channels,
        "block_out_channels": shape.channels,
        "layers_per_block": shape.resnets,
        "down_block_types": down,
        "cross_attention_dim": shape.context_width,
        # diffusers' own name for it is wrong: this is the number of heads.
        "attention_head_dim": heads,
        "transformer_layers_per_block": [
            *(max(depth, 1) for depth in shape.transformer_depth[: levels - 1]),
            max(shape.transformer_depth[-1], shape.middle_depth, 1),
        ],
        "use_linear_projection": shape.linear_projection,
    }
    if shape.vector_width is not None:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": shape.vector_width,
        }
    return config


def key_table(shape: UNetShape) -> dict[str, str]:
    """Module names: original layout -> diffusers, without `.weight` and `.bias`."""
    return dict(_pairs(shape))


def _pairs(shape: UNetShape) -> Iterator[tuple[str, str]]:
    yield "input_blocks.0.0", "conv_in"
    yield "time_embed.0", "time_embedding.linear_1"
    yield "time_embed.2", "time_embedding.linear_2"
    yield "label_emb.0.0", "add_embedding.linear_1"
    yield "label_emb.0.2", "add_embedding.linear_2"
    yield "out.0", "conv_norm_out"
    yield "out.2", "conv_out"
    yield from _resnet("middle_block.0", "mid_block.resnets.0")
    yield from _attention("middle_block.1", "mid_block.attentions.0", shape.middle_depth)
    yield from _resnet("middle_block.2", "mid_block.resnets.1")

    levels = len(shape.channels)
    for level in range(levels):
        depth = shape.transformer_depth[level]
        first = 1 + level * (shape.resnets + 1)
        for index in range(shape.resnets):
            block, down = f"input_blocks.{first + index}", f"down_blocks.{level}"
            yield from _resnet(f"{block}.0", f"{down}.resnets.{index}")
            yield from _attention(f"{block}.1", f"{down}.attentions.{index}", depth)
        yield (
            f"input_blocks.{first + shape.resnets}.0.op",
            f"down_blocks.{level}.downsamplers.0.conv",
        )

    for level in range(levels):
        depth = shape.transformer_depth[levels - 1 - level]
        first = level * (shape.resnets + 1)
        for index in range(shape.resnets + 1):
            block, up = f"output_blocks.{first + index}", f"up_blocks.{level}"
            yield from _resnet(f"{block}.0", f"{up}.resnets.{index}")
            yield from _attention(f"{block}.1", f"{up}.attentions.{index}", depth)
        last = f"output_blocks.{first + shape.resnets}"
        yield f"{last}.{2 if depth else 1}.conv", f"up_blocks.{level}.upsamplers.0.conv"


def _resnet(block: str, module: str) -> Iterator[tuple[str, str]]:
    for original, ours in _RESNET.items():
        yield f"{block}.{original}", f"{module}.{ours}"


def _attention(block: str, module: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth == 0:
        return
    for name in ("norm", "proj_in", "proj_out"):
        yield f"{block}.{name}", f"{module}.{name}"
    parts = ["norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2"]
    parts += [f"{a}.{p}" for a in ("attn1", "attn2") for p in ("to_q", "to_k", "to_v", "to_out.0")]
    for index in range(depth):
        for part in parts:
            name = f"transformer_blocks.{index}.{part}"
            yield f"{block}.{name}", f"{module}.{name}"
