"""A ControlNet file's shape and its keys in diffusers' terms.

A ControlNet (Zhang et al. 2023) is a copy of a UNet's encoder with a small network in front, which
reads the picture, and a convolution behind every block. Files are in the original layout, whose
encoder has the names of a checkpoint's, or in diffusers'.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from sdapi.engine.checkpoints.unet_keys import UNetShape, key_table, read_shape
from sdapi.errors import ModelUnusable

_HINT = "input_hint_block"
_PARTS_ORIGINAL = re.compile(rf"(zero_convs|middle_block_out|{_HINT})\.")


@dataclass(frozen=True, slots=True)
class ControlNetShape:
    """What the weights tell about a ControlNet."""

    encoder: UNetShape
    #: channels of the picture it reads, and of the layers that read it
    hint_channels: int
    hint_widths: tuple[int, ...]


def read_original(weights: Mapping[str, Tensor]) -> tuple[ControlNetShape, dict[str, Tensor]]:
    """The shape of a file in the original layout, and its weights under diffusers' names.

    Raises `ModelUnusable` when a part that every ControlNet has is missing.
    """
    encoder = read_shape(
        {key: tensor for key, tensor in weights.items() if not _PARTS_ORIGINAL.match(key)}
    )
    table = key_table(encoder) | own_names(weights)
    widths = hint_widths(weights)
    first = weights[f"{_HINT}.{_hint_layers(weights)[0]}.weight"]
    renamed = {_renamed(key, table): tensor for key, tensor in weights.items()}
    return ControlNetShape(encoder, first.shape[1], widths), renamed


def _hint_layers(weights: Mapping[str, Tensor]) -> list[int]:
    """The numbers of the layers that read the picture, in the original layout."""
    layers = sorted(
        int(key.split(".")[1]) for key in weights if re.fullmatch(rf"{_HINT}\.\d+\.weight", key)
    )
    if len(layers) < 2:
        raise ModelUnusable("the ControlNet has no layers that read a picture")
    return layers


def hint_widths(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The widths of the layers that read the picture; every second one changes it."""
    widening = _hint_layers(weights)[:-1:2]
    return tuple(weights[f"{_HINT}.{layer}.weight"].shape[0] for layer in widening)


def own_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of modules that a UNet has not: original layout -> diffusers.

    Raises `ModelUnusable` where no layers read a picture.
    """
    return dict(_own_names(weights, _hint_layers(weights)))


def _own_names(weights: Mapping[str, Tensor], layers: list[int]) -> Iterator[tuple[str, str]]:
    ours = "controlnet_cond_embedding"
    names = ["conv_in", *(f"blocks.{i}" for i in range(len(layers) - 2)), "conv_out"]
    for layer, name in zip(layers, names, strict=True):
        yield f"{_HINT}.{layer}", f"{ours}.{name}"
    yield "middle_block_out.0", "controlnet_mid_block"
    for key in weights:
        if key.startswith("zero_convs."):
            number = key.split(".")[1]
            yield f"zero_convs.{number}.0", f"controlnet_down_blocks.{number}"


def _renamed(key: str, table: Mapping[str, str]) -> str:
    module, _, leaf = key.rpartition(".")
    return f"{table[module]}.{leaf}" if module in table else key


def read_diffusers(weights: Mapping[str, Tensor]) -> ControlNetShape:
    """The shape of a file under diffusers' names; raises `ModelUnusable` for a missing part."""
    try:
        levels = count_numbered(weights, "down_blocks.{}.resnets.0.conv1.weight")
        blocks = [f"down_blocks.{level}" for level in range(levels)]
        label = weights.get("add_embedding.linear_1.weight")
        context = [t.shape[1] for k, t in weights.items() if k.endswith("attn2.to_k.weight")]
        projection = [t.ndim for k, t in weights.items() if k.endswith(".proj_in.weight")]
        encoder = UNetShape(
            in_channels=weights["conv_in.weight"].shape[1],
            out_channels=None,
            channels=tuple(weights[f"{b}.resnets.0.conv1.weight"].shape[0] for b in blocks),
            resnets=count_numbered(weights, "down_blocks.0.resnets.{}.conv1.weight"),
            transformer_depth=tuple(_depth(weights, block) for block in blocks),
            middle_depth=_depth(weights, "mid_block"),
            context_width=context[0] if context else 0,
            linear_projection=2 in projection,
            vector_width=None if label is None else label.shape[1],
        )
        hint = "controlnet_cond_embedding"
        first = weights[f"{hint}.conv_in.weight"]
        count = count_numbered(weights, hint + ".blocks.{}.weight")
        widening = [f"{hint}.blocks.{i}.weight" for i in range(1, count, 2)]
        widths = (first.shape[0], *(weights[name].shape[0] for name in widening))
        return ControlNetShape(encoder, first.shape[1], widths)
    except KeyError as error:
        raise ModelUnusable(f"the ControlNet has no {error}") from error


def count_numbered(weights: Mapping[str, Tensor], pattern: str) -> int:
    """How many names there are from 0 on, the number put into the pattern."""
    count = 0
    while pattern.format(count) in weights:
        count += 1
    return count


def _depth(weights: Mapping[str, Tensor], block: str) -> int:
    return count_numbered(weights, block + ".attentions.0.transformer_blocks.{}.norm1.weight")
