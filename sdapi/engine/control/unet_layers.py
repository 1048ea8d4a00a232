"""The layers of a UNet that controls reach into, in the order of the original layout's blocks."""

from collections.abc import Sequence
from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

#: the transformer blocks of one place, such as `input_blocks.4`
Place = Sequence[nn.Module]


def attention_places(unet: UNet2DConditionModel) -> tuple[list[Place], list[Place], list[Place]]:
    """The places with attention on the way down, in the middle and on the way up."""
    middle: Any = unet.mid_block
    return _places(unet.down_blocks), _places([middle]), _places(unet.up_blocks)


def _places(blocks: Any) -> list[Place]:
    return [
        [*attention.transformer_blocks]
        for block in blocks
        for attention in getattr(block, "attentions", None) or ()
    ]


def input_outputs(unet: UNet2DConditionModel) -> list[nn.Module]:
    """What ends each input block below the first resolution, downsampling left out."""
    return [layer for block in [*unet.down_blocks][1:] for layer in _layer_ends(block)]


def output_outputs(unet: UNet2DConditionModel) -> list[nn.Module]:
    """What ends each output block; upsampling is part of the last of a resolution."""
    found: list[nn.Module] = []
    for block in unet.up_blocks:
        ends = _layer_ends(block)
        upsamplers = getattr(block, "upsamplers", None)
        found += [*ends[:-1], upsamplers[0] if upsamplers else ends[-1]]
    return found


def _layer_ends(block: Any) -> list[nn.Module]:
    attentions = getattr(block, "attentions", None)
    return [*(attentions or block.resnets)]
