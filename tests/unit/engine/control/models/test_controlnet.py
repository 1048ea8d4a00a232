"""ControlNets of every family and layout, against diffusers' own."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import Kind, read_control_file
from sdapi.engine.control.models.controlnet import LoadedControlNet, load_controlnet
from sdapi.errors import ModelUnusable
from tests.models.builders import FEW_WORDS, Built, build_sd1, build_sd2, build_sdxl
from tests.models.controlnets import build_controlnet, original_state, write_state

BUILD: dict[str, Callable[..., Built]] = {
    "sd1": build_sd1,
    "sd1 of the demo's depth": partial(build_sd1, blocks=1),
    "sd2": build_sd2,
    "sdxl": build_sdxl,
}


def base_of(built: Built) -> BaseModel:
    return BaseModel.of_unet(built.unet, torch.float32)


def inputs_of(built: Built) -> dict[str, object]:
    torch.manual_seed(1)
    config, inputs = built.unet.config, dict[str, object]()
    inputs["encoder_hidden_states"] = torch.randn(2, 77, config["cross_attention_dim"])
    inputs["controlnet_cond"] = torch.rand(1, 3, 64, 64)
    if width := config["projection_class_embeddings_input_dim"]:
        pooled = torch.randn(2, width - 6 * 256)
        inputs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.rand(2, 6) * 64}
    return inputs


@pytest.mark.parametrize("family", BUILD)
@pytest.mark.parametrize("layout", ["original.safetensors", "original.pth", "diffusers.bin"])
def test_residuals_are_those_of_diffusers(tmp_path: Path, family: str, layout: str):
    built = BUILD[family](words=FEW_WORDS)
    theirs = build_controlnet(built.unet)
    if layout.startswith("original"):
        path = write_state(original_state(theirs), tmp_path / layout, prefix="control_model.")
    else:
        path = write_state(theirs.state_dict(), tmp_path / layout)
    ours = load_controlnet(read_control_file(path), base_of(built))
    assert isinstance(ours, LoadedControlNet)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([981.5, 981.5])
    inputs = inputs_of(built)
    with torch.inference_mode():
        down, middle = ours.module(x, t, return_dict=False, **inputs)
        expected_down, expected_middle = theirs(x, t, return_dict=False, **inputs)
    for one, other in zip([*down, middle], [*expected_down, expected_middle], strict=True):
        assert one.abs().max() > 1e-3
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_weights_that_fit_nothing_are_refused(tmp_path: Path):
    built = build_sd1(words=FEW_WORDS)
    state = original_state(build_controlnet(built.unet))
    state["input_blocks.1.0.surprise.weight"] = torch.zeros(1)
    path = write_state(state, tmp_path / "control.safetensors")
    with pytest.raises(ModelUnusable, match=r"too many.*surprise"):
        load_controlnet(read_control_file(path), base_of(built))


def test_a_controlnet_of_another_family_is_refused_by_both_names(tmp_path: Path):
    state = original_state(build_controlnet(build_sdxl(words=FEW_WORDS).unet))
    file = read_control_file(write_state(state, tmp_path / "edges.safetensors"))
    base = base_of(build_sd1(words=FEW_WORDS))
    with pytest.raises(
        ModelUnusable, match=r"edges\(SDXL\) is not compatible with sd model"
    ) as told:
        load_controlnet(file, base)
    for words in ("widths of its levels: [64, 128], the checkpoint's [32, 64]", "texts: 192, "):
        assert words in told.value.detail
    assert "blocks" not in told.value.detail


def test_a_controlnet_of_another_depth_is_refused_by_what_differs(tmp_path: Path):
    state = original_state(build_controlnet(build_sd1(words=FEW_WORDS).unet))
    file = read_control_file(write_state(state, tmp_path / "edges.safetensors"))
    with pytest.raises(ModelUnusable, match=r"blocks at each level: 2, the checkpoint's 1$"):
        load_controlnet(file, base_of(build_sd1(words=FEW_WORDS, blocks=1)))


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["lora_controlnet", "input_hint_block.0.weight"], Kind.CONTROL_LORA),
        (["task_embedding", "controlnet_cond_embedding.conv_in.weight"], Kind.UNION),
        (["ip_adapter.1.to_k_ip.weight", "image_proj.norm.weight"], Kind.IP_ADAPTER),
        (["lllite_unet_input_blocks_1_1.depth.0.weight"], Kind.LLLITE),
        (["body.0.block1.weight", "conv_in.weight"], Kind.T2I_ADAPTER),
        (["adapter.body.0.resnets.0.block1.weight"], Kind.T2I_ADAPTER),
        (["style_embedding", "proj"], Kind.T2I_STYLE),
        (["difference", "control_model.input_hint_block.0.weight"], Kind.DIFFERENCE),
    ],
)
def test_a_files_kind_is_told_from_its_keys(tmp_path: Path, keys: list[str], kind: Kind):
    path = write_state({key: torch.zeros(1) for key in keys}, tmp_path / "x.safetensors")
    assert read_control_file(path).kind is kind


def test_a_file_of_no_kind_is_refused(tmp_path: Path):
    path = write_state({"weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelUnusable, match="Cannot recognize the ControlModel!"):
        read_control_file(path)
