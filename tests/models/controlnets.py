"""Tiny ControlNets of random weights, as files in the layouts that users have.

As in `builders`, names of the original layout come from rules of their own.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers.models.adapter import T2IAdapter
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file

from tests.models.builders import State, encoder_names

HINT_WIDTHS = (8, 8, 16, 16)


def build_controlnet(unet: UNet2DConditionModel, *, seed: int = 5) -> ControlNetModel:
    """A ControlNet for a UNet; its convolutions are not zero, as those of a trained one."""
    torch.manual_seed(seed)
    module = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_WIDTHS)
    return stirred(module)


def stirred(module: torch.nn.Module) -> torch.nn.Module:
    """Every weight a little off, so that none is 0 or 1."""
    module.eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.05)
    return module


def original_state(module: ControlNetModel) -> State:
    """The weights under the names of the original layout, without a prefix."""
    return dict(_original_names(module))


def _original_names(module: ControlNetModel) -> Iterator[tuple[str, torch.Tensor]]:
    last = len(module.controlnet_cond_embedding.blocks) + 1
    for key, tensor in module.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "controlnet_cond_embedding":
            layer, _, leaf = rest.rpartition(".")
            number = {"conv_in": 0, "conv_out": last}.get(layer)
            number = int(layer.split(".")[1]) + 1 if number is None else number
            yield f"input_hint_block.{2 * number}.{leaf}", tensor
        elif part == "controlnet_down_blocks":
            number, _, leaf = rest.partition(".")
            yield f"zero_convs.{number}.0.{leaf}", tensor
        elif part == "controlnet_mid_block":
            yield f"middle_block_out.0.{rest}", tensor
    own = ("controlnet_",)
    encoder = {k: v for k, v in module.state_dict().items() if not k.startswith(own)}
    yield from encoder_names(encoder)


def write_state(state: State, path: Path, *, prefix: str = "") -> Path:
    """A file of weights, `.safetensors` or a pickle by its name."""
    named = {prefix + key: tensor.contiguous().clone() for key, tensor in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(named, path)
    else:
        torch.save(named, path)
    return path


def build_union(unet: UNet2DConditionModel, *, types: int = 6) -> ControlNetUnionModel:
    """A union model for a UNet."""
    torch.manual_seed(6)
    plain = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_WIDTHS)
    shared = inspect.signature(ControlNetUnionModel).parameters.keys() & plain.config.keys()
    module = ControlNetUnionModel(
        **{key: plain.config[key] for key in shared} | {"addition_time_embed_dim": 256},
        num_control_type=types,
        num_trans_channel=unet.config["block_out_channels"][0],
        num_proj_channel=unet.config["block_out_channels"][0],
    )
    return stirred(module)


def build_adapter(unet: UNet2DConditionModel, kind: str, *, channels: int = 3) -> T2IAdapter:
    """A T2I-Adapter for a UNet; `kind` is diffusers' name for it."""
    torch.manual_seed(7)
    widths = list(unet.config["block_out_channels"])
    widths = widths[:-1] if kind == "light_adapter" else widths
    if kind == "full_adapter_xl":
        return stirred(T2IAdapter(channels, [*widths, widths[-1]], 2, 16, kind))
    return stirred(T2IAdapter(channels, widths, 2, 8, kind))


def original_adapter_state(module: T2IAdapter) -> State:
    """The weights under the names of the original files."""
    is_light = any(".out_conv." in key for key in module.state_dict())
    state: State = {}
    for key, tensor in module.state_dict().items():
        key = key.removeprefix("adapter.")
        parts = key.split(".")
        if is_light:
            key = key.replace(".resnets.", ".body.")
        elif ".resnets." in key:
            key = f"body.{2 * int(parts[1]) + int(parts[3])}.{parts[4]}.{parts[5]}"
        elif parts[0] == "body":
            key = f"body.{2 * int(parts[1])}.{parts[2]}.{parts[3]}"
        state[key] = tensor
    return state


def control_lora_of(unet: UNet2DConditionModel, rank: int = 2) -> tuple[State, ControlNetModel]:
    """A Control-LoRA's file for a UNet, and the ControlNet that it means."""
    whole = build_controlnet(unet, seed=8)
    theirs, meant = unet.state_dict(), whole.state_dict()
    state: State = {"lora_controlnet": torch.zeros(0)}
    for key, name in original_names(whole).items():
        tensor = meant[key]
        if key.startswith("controlnet_") or ".norm" in key:
            state[name] = tensor
        elif key.endswith(".weight"):
            up = torch.randn(tensor.shape[0], rank) * 0.1
            down = torch.randn(rank, *tensor.shape[1:]) * 0.1
            place = name.removesuffix(".weight")
            state[f"{place}.up"] = up[:, :, None, None] if tensor.ndim == 4 else up
            state[f"{place}.down"] = down
            meant[key] = theirs[key] + (up @ down.flatten(1)).view_as(tensor)
        else:
            meant[key] = theirs[key]
    whole.load_state_dict(meant)
    return state, whole


def original_names(module: ControlNetModel) -> dict[str, str]:
    """What the original layout calls each weight."""
    state = module.state_dict()
    places = {tensor.data_ptr(): key for key, tensor in state.items()}
    return {places[tensor.data_ptr()]: name for name, tensor in original_state(module).items()}


def build_lllite(widths: dict[str, int], *, depths: dict[str, int]) -> State:
    """A ControlNet-LLLite's file: for layers by their names, as wide as told, the networks beside
    them; a depth of 1, 2 or 3 shrinks the picture by 8, 16 or 32."""
    torch.manual_seed(9)
    seen, inner = 16, 8
    readers = {1: ((3, 8, 4), (8, seen, 2)), 2: ((3, 8, 4), (8, seen, 4))}
    readers[3] = ((3, 8, 4), (8, 8, 4), (8, seen, 2))
    state: State = {}
    for name, width in widths.items():
        place = f"lllite_unet_{name}"
        for i, (into, out, side) in enumerate(readers[depths[name]]):
            state[f"{place}.conditioning1.{2 * i}.weight"] = torch.randn(out, into, side, side) / 4
            state[f"{place}.conditioning1.{2 * i}.bias"] = torch.randn(out) / 4
        shapes = {"down": (inner, width), "mid": (inner, inner + seen), "up": (width, inner)}
        for part, shape in shapes.items():
            state[f"{place}.{part}.0.weight"] = torch.randn(shape) / 2
            state[f"{place}.{part}.0.bias"] = torch.randn(shape[0]) / 2
    return state
