"""Names of weights in original Stable Diffusion 1 files, from those that diffusers gives."""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_HINT = re.compile(
    r"controlnet_cond_embedding\.(?:blocks\.(?P<number>\d+)|(?P<end>conv_in|conv_out))\.(?P<leaf>.+)"
)
_WAY_OUT = re.compile(r"controlnet_down_blocks\.(?P<number>\d+)\.(?P<leaf>.+)")
_BLOCK = re.compile(
    r"(?P<side>down|mid|up)_blocks?(\.(?P<level>\d+))?"
    r"\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<number>\d+)\.(?P<rest>.+)"
)


def ldm_unet_name(name: str, layers: int, names: Mapping[str, Tensor]) -> str:
    """A UNet weight's original name; `layers` is the number of residual blocks per level."""
    found = _BLOCK.fullmatch(name)
    if found is None:
        stem, leaf = name.rsplit(".", 1)
        return f"{_UNET_ENDS[stem]}.{leaf}"
    kind, rest, number = found["kind"], found["rest"], int(found["number"])
    if kind == "resnets":
        stem, leaf = rest.rsplit(".", 1)
        rest = f"{_UNET_RESNET[stem]}.{leaf}"
    if found["side"] == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * number}.{rest}"
    level, slot = int(found["level"]), 1 if kind == "attentions" else 0
    if found["side"] == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{1 + level * (layers + 1) + number}.{slot}.{rest}"
    if kind == "upsamplers":
        has_attention = any(n.startswith(f"up_blocks.{level}.attentions.") for n in names)
        place = level * (layers + 1) + layers
        return f"output_blocks.{place}.{2 if has_attention else 1}.{rest}"
    return f"output_blocks.{level * (layers + 1) + number}.{slot}.{rest}"


def ldm_vae_name(name: str, levels: int) -> str:
    """A VAE weight's original name; the decoder's levels are numbered from the finest."""
    name = name.replace("conv_norm_out", "norm_out")
    found = _BLOCK.search(name)
    if found is None:
        return name
    half, kind, rest = name[: found.start()], found["kind"], found["rest"]
    rest = rest.replace("conv_shortcut", "nin_shortcut")
    if found["side"] == "mid" and kind == "attentions":
        stem, leaf = rest.rsplit(".", 1)
        return f"{half}mid.attn_1.{_VAE_ATTENTION[stem]}.{leaf}"
    if found["side"] == "mid":
        return f"{half}mid.block_{int(found['number']) + 1}.{rest}"
    level = int(found["level"])
    place = f"down.{level}" if found["side"] == "down" else f"up.{levels - 1 - level}"
    kind = {"resnets": f"block.{found['number']}", "downsamplers": "downsample"}.get(
        kind, "upsample"
    )
    return f"{half}{place}.{kind}.{rest}"


def ldm_unet(weights: Mapping[str, Tensor], layers: int) -> Iterator[tuple[str, Tensor]]:
    """The UNet's part of the file."""
    for name, weight in weights.items():
        yield f"model.diffusion_model.{ldm_unet_name(name, layers, weights)}", weight


def ldm_vae(weights: Mapping[str, Tensor], levels: int) -> Iterator[tuple[str, Tensor]]:
    """The VAE's part of the file; its attention is stored as 1x1 convolutions."""
    for name, weight in weights.items():
        is_projection = ".attentions." in name and weight.ndim == 2
        original = f"first_stage_model.{ldm_vae_name(name, levels)}"
        yield original, weight[:, :, None, None] if is_projection else weight


def ldm_text_encoder(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The text encoder's part of the file."""
    for name, weight in weights.items():
        if not name.endswith("position_ids"):
            yield (
                f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}",
                weight,
            )


def ldm_control(weights: Mapping[str, Tensor], layers: int) -> Iterator[tuple[str, Tensor]]:
    """A ControlNet's file: the UNet's first half, the picture's way in, and the ways out."""
    for name, weight in weights.items():
        if found := _HINT.fullmatch(name):
            place = {"conv_in": 0, "conv_out": 14}.get(found["end"] or "")
            number = 2 * (int(found["number"]) + 1) if place is None else place
            original = f"input_hint_block.{number}.{found['leaf']}"
        elif found := _WAY_OUT.fullmatch(name):
            original = f"zero_convs.{found['number']}.0.{found['leaf']}"
        elif name.startswith("controlnet_mid_block."):
            original = name.replace("controlnet_mid_block", "middle_block_out.0")
        else:
            original = ldm_unet_name(name, layers, weights)
        yield f"control_model.{original}", weight


def kohya_lora(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Low-rank weights of a UNet, from those that peft gives."""
    for name, weight in weights.items():
        module, half = name.removesuffix(".default.weight").rsplit(".", 1)
        side = {"lora_A": "lora_down", "lora_B": "lora_up"}[half]
        yield f"lora_unet_{module.replace('.', '_')}.{side}.weight", weight
