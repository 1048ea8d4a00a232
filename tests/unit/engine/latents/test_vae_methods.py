"""TAESD from local files, and large pictures in tiles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.latents import vae as vae_module
from sdapi.engine.latents.tiny_vae import TinyVAE, load_tiny, tiny_file
from sdapi.errors import ModelUnusable
from tests.models.builders import FEW_WORDS, build_sd1

SCALE = 0.18215


@pytest.fixture(scope="module")
def tiny() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tiny: AutoencoderTiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TAESD's two files as its author publishes them."""
    path = tmp_path_factory.mktemp("approx")
    for half, module, shift in (("encoder", tiny.encoder, 0), ("decoder", tiny.decoder, 1)):
        state: dict[str, Tensor] = {}
        for key, tensor in module.layers.state_dict().items():
            index, _, rest = key.partition(".")
            state[f"{int(index) + shift}.{rest}"] = tensor
        torch.save(state, path / f"taesd_{half}.pth")
    return path


def exchanged(folder: Path, full: torch.nn.Module, *halves: str) -> TinyVAE:
    modules = {h: load_tiny(folder / f"taesd_{h}.pth", h, torch.float32) for h in halves}
    made = TinyVAE.instead_of(
        full, SCALE, encoder=modules.get("encoder"), decoder=modules.get("decoder")
    )
    assert isinstance(made, TinyVAE)
    return made


def test_decoder_takes_scaled_latents_and_gives_pictures(folder: Path, tiny: AutoencoderTiny):
    full = build_sd1(words=FEW_WORDS).vae
    latents = torch.randn(1, 4, 8, 8)
    with torch.inference_mode():
        expected = vae_module.to_image(tiny.decode(latents).sample[0])
        (made,) = vae_module.decode(exchanged(folder, full, "decoder"), latents, SCALE)
    # the way over unscaled latents rounds
    assert np.abs(np.asarray(made).astype(int) - np.asarray(expected)).max() <= 1


def test_encoder_gives_scaled_latents_without_noise(folder: Path, tiny: AutoencoderTiny):
    full = build_sd1(words=FEW_WORDS).vae
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        made = vae_module.encode(
            exchanged(folder, full, "encoder"), pixels, SCALE, torch.Generator().manual_seed(1)
        )
        assert torch.allclose(made, tiny.encode(pixels).latents, atol=1e-5)


def test_the_half_that_is_not_exchanged_is_the_full_ones(folder: Path):
    full = build_sd1(words=FEW_WORDS).vae
    mixed = exchanged(folder, full, "encoder")
    latents = torch.randn(1, 4, 8, 8)
    with torch.inference_mode():
        assert torch.equal(mixed.decode(latents)[0], full.decode(latents, return_dict=False)[0])
    assert TinyVAE.instead_of(full, SCALE, encoder=None, decoder=None) is full


@pytest.mark.parametrize(
    ("family", "name"), [(Family.SD1, "taesd_encoder"), (Family.SDXL, "taesdxl_encoder")]
)
def test_missing_file_is_named_with_its_option(tmp_path: Path, family: Family, name: str):
    with pytest.raises(ModelUnusable, match=f"sd_vae_encode_method.*{name}.pth"):
        tiny_file(tmp_path, family, "encoder")


def test_file_that_is_no_taesd_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "taesd_decoder.pth"
    torch.save({"0.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelUnusable, match=r"taesd_decoder\.pth: TAESD lacks"):
        load_tiny(path, "decoder", torch.float32)


def test_only_large_pictures_pass_in_tiles(monkeypatch: pytest.MonkeyPatch):
    full = build_sd1(words=FEW_WORDS).vae
    latents = torch.randn(1, 4, 24, 24)
    seen: list[bool] = []
    whole = full.decoder.forward
    monkeypatch.setattr(full.decoder, "forward", lambda z, *a: (seen.append(True), whole(z, *a))[1])
    with torch.inference_mode():
        vae_module.decode(full, latents, SCALE)
        assert len(seen) == 1
        monkeypatch.setattr(vae_module, "TILED_FROM_PIXELS", 64 * 64)
        monkeypatch.setattr(vae_module, "_TILE", 128)
        (tiled,) = vae_module.decode(full, latents, SCALE)
    assert len(seen) > 2
    assert tiled.size == (192, 192)
    assert not full.use_tiling
