"""TAESD (Bohan 2023): small stand-ins for a VAE's encoder and decoder, from local files.

`models/VAE-approx/taesd_decoder.pth` and its kin, in the original layout or as safetensors.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import (
    DecoderTiny,
    DiagonalGaussianDistribution,
    EncoderTiny,
)
from torch import Tensor, nn

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.state_dict import StateDict, read_state_dict
from sdapi.errors import ModelUnusable

Half = Literal["encoder", "decoder"]
_ENDINGS = (".safetensors", ".pth", ".pt")
_CHANNELS = (64, 64, 64, 64)


def tiny_file(folder: Path, family: Family, half: Half) -> Path:
    """The file of a half; raises `ModelUnusable` that names the file to put there."""
    stem = f"taesdxl_{half}" if family is Family.SDXL else f"taesd_{half}"
    for ending in _ENDINGS:
        if (path := folder / f"{stem}{ending}").is_file():
            return path
    option = f"sd_vae_{half.removesuffix('r')}_method"
    raise ModelUnusable(f"{option}: TAESD needs the file {folder / stem}.pth, which is not there")


def load_tiny(path: Path, half: Half, dtype: torch.dtype) -> nn.Module:
    """One half on the CPU; raises `ModelUnusable` for a file that is none."""
    weights = read_state_dict(path)
    if half == "encoder":
        module = EncoderTiny(3, 4, (1, 3, 3, 3), _CHANNELS, "relu")
        shift = 0
    else:
        module = DecoderTiny(4, 3, (3, 3, 3, 1), _CHANNELS, 2, "relu", "nearest")
        shift = 1  # the original counts the clamp before its layers
    try:
        return assign(module, _renamed(weights, shift), "TAESD", dtype)
    except ModelUnusable as error:
        raise ModelUnusable(f"{path.name}: {error}") from error


def _renamed(weights: StateDict, shift: int) -> StateDict:
    renamed: StateDict = {}
    for key, tensor in weights.items():
        index, _, rest = key.partition(".")
        number = int(index) - shift if index.isdecimal() else index
        renamed[f"layers.{number}.{rest}"] = tensor
    return renamed


class TinyVAE(nn.Module):
    """A VAE with one or both halves exchanged; everything else is the full one's.

    TAESD works on latents as samplers have them, the full VAE on unscaled ones.
    """

    def __init__(
        self,
        full: AutoencoderKL,
        scale_factor: float,
        encoder: nn.Module | None,
        decoder: nn.Module | None,
    ) -> None:
        super().__init__()
        self.full = full
        self.tiny_encoder = encoder
        self.tiny_decoder = decoder
        self._scale_factor = scale_factor

    @classmethod
    def instead_of(
        cls,
        full: AutoencoderKL,
        scale_factor: float,
        *,
        encoder: nn.Module | None,
        decoder: nn.Module | None,
    ) -> AutoencoderKL:
        """The full VAE as its users see it, with the tiny halves that there are."""
        if encoder is None and decoder is None:
            return full
        return cast("AutoencoderKL", cls(full, scale_factor, encoder, decoder))

    @property
    def config(self) -> Any:
        return self.full.config

    @property
    def dtype(self) -> torch.dtype:
        return self.full.dtype

    @property
    def device(self) -> torch.device:
        return self.full.device

    @property
    def decoder(self) -> nn.Module:
        return self.full.decoder

    def encode(self, pixels: Tensor, return_dict: bool = False) -> tuple[Any]:
        """The posterior of pictures in [-1, 1]; TAESD's has no spread."""
        if self.tiny_encoder is None:
            return cast("tuple[Any]", self.full.encode(_float(pixels), return_dict=return_dict))
        mean = self.tiny_encoder(_like(self.tiny_encoder, pixels)) / self._scale_factor
        parameters = torch.cat([mean, torch.zeros_like(mean)], dim=1)
        return (DiagonalGaussianDistribution(parameters, deterministic=True),)

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """Pictures in [-1, 1] of unscaled latents."""
        if self.tiny_decoder is None:
            found = self.full.decode(_float(latents), return_dict=return_dict)
            return cast("tuple[Tensor]", found)
        return (self.tiny_decoder(_like(self.tiny_decoder, latents * self._scale_factor)),)


def _like(module: nn.Module, tensor: Tensor) -> Tensor:
    return tensor.to(next(module.parameters()))


def _float(tensor: Tensor) -> Any:
    # diffusers says FloatTensor where it takes every floating type.
    return cast("torch.FloatTensor", tensor)
