"""Between pictures and latents (contract: webui-generation 11)."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import Tensor

from sdapi.engine.checkpoints.precision import NANS_FAIL, NanRule
from sdapi.errors import NanProduced

#: Pictures of more pixels pass the VAE in tiles that are blended; the result is not exact there.
TILED_FROM_PIXELS = 2048 * 2048
#: pixels of a tile's side, and the share of it that overlaps the next
_TILE, _OVERLAP = 1024, 0.25

_NAN_TEXT = (
    "A tensor with NaNs was produced in VAE. The VAE cannot work in its number type; try "
    "--no-half-vae. Use --disable-nan-check commandline argument to disable this check."
)


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size -> [B, 3, H, W] in [-1, 1]."""
    arrays = [np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0 for image in images]
    # Contiguous: in another memory layout convolutions round otherwise.
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous() * 2.0 - 1.0


def encode(
    vae: AutoencoderKL,
    pixels: Tensor,
    scale_factor: float,
    generator: torch.Generator,
    nans: NanRule = NANS_FAIL,
) -> Tensor:
    """Sample latents [B, C, H/8, W/8], float32, of pictures [B, 3, H, W] in [-1, 1], one at a time.

    The posterior is sampled with CPU noise from `generator`, not its mode. Raises `NanProduced`.
    """
    latents: list[Tensor] = []
    for picture in pixels.split(1):
        mean, std = moments(vae, picture, nans)
        noise = torch.randn(mean.shape, generator=generator)
        latents.append((mean + std * noise.to(mean.device)) * scale_factor)
    return torch.cat(latents)


def moments(
    vae: AutoencoderKL, picture: Tensor, nans: NanRule = NANS_FAIL
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of a picture's latent, float32, not scaled; [1, 3, H, W] in [-1, 1].

    Raises `NanProduced`.
    """
    posterior = _posterior(vae, picture, nans)
    return posterior.mean.float(), posterior.std.float()


def encode_mode(vae: AutoencoderKL, pixels: Tensor, nans: NanRule = NANS_FAIL) -> Tensor:
    """The most likely latents of pictures [B, 3, H, W] in [-1, 1], float32, not scaled.

    Raises `NanProduced`.
    """
    modes = [_posterior(vae, picture, nans).mode().float() for picture in pixels.split(1)]
    return torch.cat(modes)


def _posterior(vae: AutoencoderKL, picture: Tensor, nans: NanRule) -> Any:
    with _tiled(vae, picture.shape[-2] * picture.shape[-1]):
        posterior = vae.encode(picture.to(vae.device, vae.dtype), return_dict=False)[0]
    if nans.checks and torch.isnan(posterior.mean).any():
        _widen(vae, nans)
        return _posterior(vae, picture, nans)
    return posterior


def _widen(vae: AutoencoderKL, nans: NanRule) -> None:
    """Switch a VAE that makes NaNs to the rule's type for good, or raise `NanProduced`."""
    if nans.widen_to is None or vae.dtype != torch.float16:
        raise NanProduced(_NAN_TEXT)
    torch.nn.Module.to(vae, nans.widen_to)  # diffusers' wrapper of `to` hides its types


@contextmanager
def _tiled(vae: torch.nn.Module, pixels: int) -> Generator[None]:
    """Let a large picture pass in tiles: in one piece it would need tens of gigabytes."""
    if pixels <= TILED_FROM_PIXELS or not isinstance(vae, AutoencoderKL):
        yield
        return
    vae.tile_sample_min_size, vae.tile_latent_min_size = _TILE, _TILE // 8
    vae.tile_overlap_factor = _OVERLAP
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.disable_tiling()


def decode(
    vae: AutoencoderKL, latents: Tensor, scale_factor: float, nans: NanRule = NANS_FAIL
) -> list[Image.Image]:
    """Decode latents [B, C, h, w] to RGB pictures, one at a time.

    Raises `NanProduced`; NaNs that nobody looks for become black.
    """
    return [
        to_image(torch.nan_to_num(_decode_one(vae, latent / scale_factor, nans), nan=-1.0))
        for latent in latents.split(1)
    ]


def _decode_one(vae: AutoencoderKL, latent: Tensor, nans: NanRule) -> Tensor:
    pixels = _decode_unchecked(vae, latent)
    if nans.checks and torch.isnan(pixels).any():
        _widen(vae, nans)
        return _decode_one(vae, latent, nans)
    return pixels[0]


def _decode_unchecked(vae: AutoencoderKL, latent: Tensor) -> Tensor:
    # diffusers says FloatTensor where it takes every floating type.
    z = cast("torch.FloatTensor", latent.to(vae.dtype))
    with _tiled(vae, latent.shape[-2] * latent.shape[-1] * 64):
        return vae.decode(z, return_dict=False)[0].float()


def to_image(pixels: Tensor) -> Image.Image:
    """[3, H, W] in [-1, 1] -> picture; values are cut off, not rounded."""
    scaled = ((pixels + 1.0) / 2.0).clamp(0.0, 1.0) * 255.0
    array = scaled.permute(1, 2, 0).cpu().numpy().astype(np.uint8)
    return Image.fromarray(array)
