"""Text states, UNet and VAE of a tiny checkpoint against the reference's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdapi.engine.checkpoints.checkpoint import Components, load_checkpoint
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.latents import vae
from sdapi.engine.text.conditioning import Conditioner
from sdapi.engine.text.grammar.schedule import Timeline
from sdapi.engine.text.text_options import TextOptions
from tests.parity.test_prompt_vectors import PLAIN, PROMPTS

VECTORS = Path(__file__).parents[1] / "golden" / "vectors"
FP32 = Precision(torch.float32, torch.float32)


@pytest.fixture(scope="module")
def tiny(golden: Path) -> Components:
    models = golden / "models"
    return load_checkpoint(models / "tinyA.safetensors", models / "tinyA.yaml", FP32)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(VECTORS / "model.npz") as file:
        return dict(file)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


@torch.inference_mode()
def test_prompts_are_encoded_as_recorded(tiny: Components):
    with np.load(VECTORS / "conds.npz") as file:
        expected = {name: file[name] for name in file.files if name in PLAIN}
    assert len(expected) > 50
    conditioner, off = Conditioner(tiny), dict[str, float]()
    for name, states in expected.items():
        # Taken as the encoder gets it: without composition and editing.
        counts = {PROMPTS[name]: 1}
        rows, _ = conditioner._split(counts, TextOptions())  # pyright: ignore
        cond = conditioner._encode(rows, counts, TextOptions(), is_negative=False)[0]  # pyright: ignore
        error = float(np.abs(cond.cross.numpy() - states[0]).max())
        if error > 2e-4:
            off[name] = error
    assert off == {}


@torch.inference_mode()
def test_plain_prompt_is_encoded_as_recorded_through_the_public_way(tiny: Components):
    batch = Conditioner(tiny).batch(["cat"], [""], Timeline(6), TextOptions())
    with np.load(VECTORS / "conds.npz") as file:
        positive = batch.positive[0][0].schedule.at(0).cross.numpy()
        assert np.abs(positive - file["one"][0]).max() < 1e-4
        assert np.abs(batch.negative[0].at(0).cross.numpy() - file["empty"][0]).max() < 1e-4


@torch.inference_mode()
def test_unet_predicts_as_recorded(tiny: Components, recorded: dict[str, np.ndarray]):
    x, t, c = (as_tensor(recorded[name]) for name in ("x", "t", "c"))
    predicted = tiny.unet(x, t, encoder_hidden_states=c, return_dict=False)[0].numpy()
    assert np.abs(predicted - recorded["eps"]).max() < 1e-4


@torch.inference_mode()
def test_vae_decodes_as_recorded(tiny: Components, recorded: dict[str, np.ndarray]):
    latent = as_tensor(recorded["z"]) / tiny.scale_factor
    decoded = tiny.vae.decode(latent, return_dict=False)[0].numpy()
    assert np.abs(decoded - recorded["decoded"]).max() < 1e-4


@torch.inference_mode()
def test_vae_encodes_as_recorded(tiny: Components, recorded: dict[str, np.ndarray], golden: Path):
    with Image.open(golden / "inputs" / "a128.png") as picture:
        moments = tiny.vae.encode(vae.to_tensor([picture]), return_dict=False)[0]
    # Random weights make large means, of which float32 convolutions keep about four digits.
    largest = np.abs(recorded["enc_mean"]).max()
    assert np.abs(moments.mean.numpy() - recorded["enc_mean"]).max() < 2e-4 * largest
    assert np.abs(moments.std.numpy() - recorded["enc_std"]).max() < 1e-6


def test_noise_schedule_is_as_recorded(tiny: Components, recorded: dict[str, np.ndarray]):
    assert tiny.alphas_cumprod.numpy() == pytest.approx(recorded["alphas_cumprod"], rel=1e-6)


def test_latent_scale_is_as_recorded(tiny: Components, recorded: dict[str, np.ndarray]):
    scaled = recorded["enc_mean"] * tiny.scale_factor
    assert scaled == pytest.approx(recorded["latent_from_mean"], abs=1e-6)


def test_decoded_pixels_are_cut_off_and_not_rounded():
    pixels = torch.tensor([-2.0, -1.0, 0.999 / 127.5 - 1, 0.0, 1.0, 3.0]).reshape(1, 1, 6)
    picture = vae.to_image(pixels.expand(3, 1, 6))
    assert [picture.getpixel((x, 0))[0] for x in range(6)] == [0, 0, 0, 127, 255, 255]
