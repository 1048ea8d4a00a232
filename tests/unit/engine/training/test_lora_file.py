"""A trained LoRA in the hands of diffusers and peft."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_pipeline import (
    StableDiffusionLoraLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
)

from sdapi.engine.networks.selection import LoraUse, NetworkFiles, NetworkSet
from sdapi.engine.training.job import LoraShape
from sdapi.engine.weights.model_file import ModelFile
from tests.engines import cpu_models
from tests.models.builders import build_sd1, build_sdxl
from tests.unit.engine.training.lessons import finished, lesson

LOADERS: dict[Any, Any] = {
    build_sd1: StableDiffusionLoraLoaderMixin,
    build_sdxl: StableDiffusionXLLoraLoaderMixin,
}


@pytest.mark.parametrize("has_convolutions", [False, True])
@pytest.mark.parametrize("build", [build_sd1, build_sdxl])
def test_diffusers_and_peft_make_of_the_file_what_the_engine_does(
    tmp_path: Path, build: Any, has_convolutions: bool
):
    built = build()
    file = ModelFile.of(built.write(tmp_path / "base.safetensors"))
    models = cpu_models()
    shape = LoraShape(8, 4.0, has_convolutions=has_convolutions)
    job = lesson(file, tmp_path / "lesson", learning_rate=1e-2, shape=shape)
    lora = finished(job, models).result().checkpoints[-1][1]

    loader = LOADERS[build]
    state, alphas, *_ = loader.lora_state_dict(lora, unet_config=built.unet.config)
    loader.load_lora_into_unet(state, alphas, built.unet)
    inputs = inputs_of(built.unet)
    with torch.no_grad():
        theirs = built.unet(**inputs).sample
        built.unet.disable_lora()
        plain = built.unet(**inputs).sample
        with models.checkpoint(file) as loaded:
            wanted = NetworkSet((LoraUse("a", ModelFile.of(lora)),))
            assert models.activate(loaded, wanted, NetworkFiles()) == ()
            ours = loaded.components.unet(**inputs).sample
    assert (theirs - plain).abs().max() > 0.01
    assert torch.allclose(ours, theirs, atol=1e-3)
    assert any(".resnets." in key for key in state) == has_convolutions
    text = {key for key in state if key.startswith("text_encoder.")}
    assert len(text) == 2 * 6 * 3  # six layers in each of three blocks


def inputs_of(unet: Any) -> dict[str, Any]:
    """What a UNet of either family is called with."""
    torch.manual_seed(0)
    width = unet.config.cross_attention_dim
    inputs: dict[str, Any] = {
        "sample": torch.randn(1, 4, 8, 8),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 77, width),
    }
    if unet.config.addition_embed_type == "text_time":
        of_sizes = 6 * unet.config.addition_time_embed_dim
        pooled = unet.config.projection_class_embeddings_input_dim - of_sizes
        inputs["added_cond_kwargs"] = {
            "text_embeds": torch.randn(1, pooled),
            "time_ids": torch.full((1, 6), 64.0),
        }
    return inputs
