"""A trained LoRA in the hands of diffusers and peft."""

from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin

from sdapi.engine.networks.selection import LoraUse, NetworkFiles, NetworkSet
from sdapi.engine.training.job import LoraShape
from sdapi.engine.weights.model_file import ModelFile
from tests.engines import cpu_models
from tests.models.builders import build_sd1
from tests.unit.engine.training.lessons import finished, lesson


@pytest.mark.parametrize("has_convolutions", [False, True])
def test_diffusers_and_peft_make_of_the_file_what_the_engine_does(
    tmp_path: Path, has_convolutions: bool
):
    built = build_sd1()
    file = ModelFile.of(built.write(tmp_path / "sd1.safetensors"))
    models = cpu_models()
    shape = LoraShape(8, 4.0, has_convolutions=has_convolutions)
    job = lesson(file, tmp_path / "lesson", learning_rate=1e-2, shape=shape)
    lora = finished(job, models).result().checkpoints[-1][1]

    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(lora)
    StableDiffusionLoraLoaderMixin.load_lora_into_unet(state, alphas, built.unet)
    torch.manual_seed(0)
    x, t, states = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 64)
    with torch.no_grad():
        theirs = built.unet(x, t, encoder_hidden_states=states).sample
        built.unet.disable_lora()
        plain = built.unet(x, t, encoder_hidden_states=states).sample
        with models.checkpoint(file) as loaded:
            wanted = NetworkSet((LoraUse("a", ModelFile.of(lora)),))
            assert models.activate(loaded, wanted, NetworkFiles()) == ()
            ours = loaded.components.unet(x, t, encoder_hidden_states=states).sample
    assert (theirs - plain).abs().max() > 0.01
    assert torch.allclose(ours, theirs, atol=1e-3)
    text = {key for key in state if key.startswith("text_encoder.")}
    assert len(text) == 2 * 6 * 3  # six layers in each of three blocks
