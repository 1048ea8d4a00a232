"""A checkpoint's layers under every name that network files have for them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from sdapi.engine.checkpoints import unet_keys
from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import Components

_LAYERS = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
#: what files call the first and the second text encoder
_TEXT_PREFIXES: dict[Family, tuple[tuple[str, ...], ...]] = {
    Family.SD1: (("lora_te_", "lora_te1_", "text_encoder_"),),
    Family.SD2: (("lora_te_", "text_encoder_"),),
    Family.SDXL: (("lora_te1_", "text_encoder_"), ("lora_te2_", "text_encoder_2_")),
}
_UNET_PREFIXES = ("lora_unet_", "oft_unet_", "unet_")


@dataclass(frozen=True, slots=True)
class Target:
    """A layer that networks may change."""

    #: of the module among the checkpoint's, for messages and as a key
    name: str
    module: torch.nn.Module
    #: of a text encoder, else of the UNet
    is_text: bool


def layer_index(components: Components) -> dict[str, Target]:
    """Every layer under each of its names, see `key_forms` (contract: webui-generation 14)."""
    index: dict[str, Target] = {}
    originals = {ours: theirs for theirs, ours in original_names(components.unet).items()}
    for path, module in _layers(components.unet):
        target = Target(f"unet.{path}", module, is_text=False)
        names = [path] + ([originals[path]] if path in originals else [])
        for name in names:
            for prefix in _UNET_PREFIXES:
                index[prefix + name.replace(".", "_")] = target
        # diffusers' oldest files name modules from the UNet on.
        index[path.replace(".", "_")] = target
    prefixes = _TEXT_PREFIXES[components.family]
    for number, encoder in enumerate(components.text_encoders):
        for path, module in _layers(encoder.model):
            bare = path.removeprefix("text_model.")
            target = Target(f"text_encoders.{number}.{bare}", module, is_text=True)
            for prefix in prefixes[number]:
                index[f"{prefix}text_model_{bare.replace('.', '_')}"] = target
            index[f"{prefixes[number][-1]}{bare.replace('.', '_')}"] = target
    return index


def _layers(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    return ((path, module) for path, module in model.named_modules() if isinstance(module, _LAYERS))


def original_names(unet: UNet2DConditionModel) -> dict[str, str]:
    """Module names of the original layout -> diffusers'."""
    config = unet.config
    kinds = config["down_block_types"]
    depths = config["transformer_layers_per_block"]
    depths = (depths,) * len(kinds) if isinstance(depths, int) else tuple(depths)
    shape = unet_keys.UNetShape(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        channels=tuple(config["block_out_channels"]),
        resnets=int(config["layers_per_block"]),
        transformer_depth=tuple(
            depth if kind.startswith("CrossAttn") else 0
            for depth, kind in zip(depths, kinds, strict=True)
        ),
        middle_depth=depths[-1],
        context_width=config["cross_attention_dim"],
        linear_projection=config["use_linear_projection"],
        vector_width=None,
    )
    return unet_keys.key_table(shape)
