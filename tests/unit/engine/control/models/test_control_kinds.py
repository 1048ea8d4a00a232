"""Union models, Control-LoRAs and T2I-Adapters, against what they are made of."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import read_control_file
from sdapi.engine.control.models.control_lora import LoadedControlLora, load_control_lora
from sdapi.engine.control.models.t2i_adapter import LoadedAdapter, level_sizes, load_adapter
from sdapi.engine.control.models.union import LoadedUnion, load_union
from sdapi.errors import ModelUnusable
from tests.models.builders import FEW_WORDS, build_sd1, build_sdxl
from tests.models.controlnets import (
    build_adapter,
    build_union,
    control_lora_of,
    original_adapter_state,
    write_state,
)


def base_of(unet: UNet2DConditionModel) -> BaseModel:
    return BaseModel.of_unet(unet, torch.float32)


def inputs_of(unet: UNet2DConditionModel) -> dict[str, Any]:
    torch.manual_seed(1)
    config = unet.config
    inputs: dict[str, Any] = {
        "sample": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([500.0, 500.0]),
        "encoder_hidden_states": torch.randn(2, 77, config["cross_attention_dim"]),
        "controlnet_cond": torch.rand(2, 3, 64, 64),
        "return_dict": False,
    }
    if width := config["projection_class_embeddings_input_dim"]:
        pooled = torch.randn(2, width - 6 * 256)
        inputs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.rand(2, 6) * 64}
    return inputs


def assert_same(ours: Any, theirs: Any) -> None:
    for one, other in zip([*ours[0], ours[1]], [*theirs[0], theirs[1]], strict=True):
        assert one.abs().max() > 1e-3
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("types", [6, 8])
def test_a_union_model_is_diffusers_own(tmp_path: Path, types: int):
    unet = build_sdxl(words=FEW_WORDS).unet
    theirs = build_union(unet, types=types)
    path = write_state(theirs.state_dict(), tmp_path / "union.safetensors")
    ours = load_union(read_control_file(path), base_of(unet))
    assert isinstance(ours, LoadedUnion)
    assert ours.types == types
    inputs = inputs_of(unet)
    inputs["controlnet_cond"] = [inputs["controlnet_cond"]]
    chosen = {"control_type": torch.eye(types)[[3, 3]], "control_type_idx": [3]}
    with torch.inference_mode():
        assert_same(ours.module(**inputs, **chosen), theirs(**inputs, **chosen))


@pytest.mark.parametrize("build", [build_sd1, build_sdxl])
def test_a_control_lora_is_the_checkpoint_and_its_differences(tmp_path: Path, build: Any):
    unet = build(words=FEW_WORDS).unet
    state, meant = control_lora_of(unet)
    path = write_state(state, tmp_path / "lora.safetensors")
    ours = load_control_lora(read_control_file(path), base_of(unet))
    assert isinstance(ours, LoadedControlLora)
    before = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    inputs = inputs_of(unet)
    with torch.inference_mode():
        ours.bind(unet, torch.device("cpu"), torch.float32)
        assert_same(ours.module(**inputs), meant(**inputs))
        ours.release()
    assert all(torch.equal(before[key], tensor) for key, tensor in unet.state_dict().items())
    # What it keeps in memory is its own.
    assert ours.size_bytes < sum(p.numel() * 4 for p in meant.parameters()) / 2


def test_a_control_lora_follows_what_is_merged_into_the_checkpoint(tmp_path: Path):
    unet = build_sd1(words=FEW_WORDS).unet
    state, _ = control_lora_of(unet)
    path = write_state(state, tmp_path / "lora.safetensors")
    ours = load_control_lora(read_control_file(path), base_of(unet))
    assert isinstance(ours, LoadedControlLora)
    inputs = inputs_of(unet)
    with torch.inference_mode():
        ours.bind(unet, torch.device("cpu"), torch.float32)
        plain = ours.module(**inputs)[1]
        unet.get_parameter("mid_block.resnets.0.conv1.weight").add_(0.1)
        merged = ours.module(**inputs)[1]
    assert not torch.equal(plain, merged)


def test_a_control_lora_of_another_width_is_refused(tmp_path: Path):
    state, _ = control_lora_of(build_sdxl(words=FEW_WORDS).unet)
    path = write_state(state, tmp_path / "lora.safetensors")
    base = base_of(build_sd1(words=FEW_WORDS).unet)
    with pytest.raises(ModelUnusable, match="lora"):
        load_control_lora(read_control_file(path), base)


def three_levels(**changes: Any) -> UNet2DConditionModel:
    """SDXL's form: its first level has no attention, its last no halving."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
        **changes,
    ).eval()


WITH_SIZES: dict[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 6 * 256 + 64,
}


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize(
    ("kind", "channels"), [("full_adapter", 3), ("full_adapter", 1), ("light_adapter", 3)]
)
def test_an_adapters_features_are_diffusers_own(
    tmp_path: Path, layout: str, kind: str, channels: int
):
    unet = three_levels()
    theirs = build_adapter(unet, kind, channels=channels)
    state = original_adapter_state(theirs) if layout == "original" else theirs.state_dict()
    path = write_state(state, tmp_path / "adapter.safetensors")
    ours = load_adapter(read_control_file(path), base_of(unet))
    assert isinstance(ours, LoadedAdapter)
    hint = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs(hint[:, :channels])
        for one, other in zip(ours.features(hint), expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [64, 72])
def test_an_sdxl_adapters_features_fit_the_unet(tmp_path: Path, side: int):
    unet = three_levels(**WITH_SIZES)
    theirs = build_adapter(unet, "full_adapter_xl")
    path = write_state(original_adapter_state(theirs), tmp_path / "adapter.safetensors")
    ours = load_adapter(read_control_file(path), base_of(unet))
    assert isinstance(ours, LoadedAdapter)
    x = torch.randn(2, 4, side // 8, side // 8)
    with torch.inference_mode():
        features = ours.features(torch.rand(1, 3, side, side))
        sizes = level_sizes(x, len(features), is_xl=True)
        fitting = [
            torch.nn.functional.interpolate(f, s) for f, s in zip(features, sizes, strict=True)
        ]
        arguments: dict[str, Any] = {
            "encoder_hidden_states": torch.randn(2, 77, 64),
            "added_cond_kwargs": {"text_embeds": torch.randn(2, 64), "time_ids": torch.rand(2, 6)},
        }
        plain = unet(x, 500, **arguments).sample
        inside = [feature.expand(2, -1, -1, -1) for feature in fitting]
        # The UNet takes all of them, the middle's too.
        steered = unet(x, 500, down_intrablock_additional_residuals=inside, **arguments).sample
    assert inside == []
    assert not torch.equal(plain, steered)


def test_an_adapter_of_another_width_is_refused(tmp_path: Path):
    theirs = build_adapter(build_sdxl(words=FEW_WORDS).unet, "full_adapter")
    path = write_state(theirs.state_dict(), tmp_path / "adapter.safetensors")
    base = base_of(build_sd1(words=FEW_WORDS).unet)
    with pytest.raises(ModelUnusable, match=r"adapter is not compatible.*\[64, 128\] wide"):
        load_adapter(read_control_file(path), base)


def test_a_levels_size_is_rounded_up_as_a_unet_halves():
    x = SimpleNamespace(shape=(1, 4, 9, 7))
    assert level_sizes(x, 3, is_xl=False) == [(9, 7), (5, 4), (3, 2)]
