"""NaNs that a VAE makes in half precision."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdapi.engine.checkpoints.precision import NANS_PASS, NanRule
from sdapi.engine.latents.vae import encode, encode_mode
from sdapi.errors import NanProduced
from tests.models.builders import FEW_WORDS, build_sd1

PIXELS = torch.ones(1, 3, 16, 16)


@pytest.fixture
def overflowing() -> AutoencoderKL:
    """A VAE whose first layer makes numbers that float32 can hold, and float16 cannot."""
    vae = build_sd1(words=FEW_WORDS).vae.eval().requires_grad_(False)
    vae.encoder.conv_in.weight.data.fill_(6e4)
    torch.nn.Module.to(vae, torch.float16)
    return vae


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_an_encoder_that_makes_nans_is_widened_for_good(overflowing: AutoencoderKL):
    rule = NanRule(widen_to=torch.float32)
    latent = encode(overflowing, PIXELS, 1.0, noise(), rule)
    assert overflowing.dtype is torch.float32
    assert latent.isfinite().all()
    assert torch.equal(latent, encode(overflowing, PIXELS, 1.0, noise()))


def test_without_a_wider_type_its_nans_are_an_error(overflowing: AutoencoderKL):
    for _ in range(2):
        with pytest.raises(NanProduced, match="produced in VAE"):
            encode_mode(overflowing, PIXELS)
    assert encode_mode(overflowing, PIXELS, NANS_PASS).isnan().any()
    assert overflowing.dtype is torch.float16
