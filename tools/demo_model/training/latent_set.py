"""A run's captioned latents, and its batches of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tools.demo_model.networks.models import make_vae
from tools.demo_model.pictures.cache import cached_pictures
from tools.demo_model.pictures.dataset import TRAIN
from tools.demo_model.training.emphasis import training_emphasis
from tools.demo_model.training.focus import training_focus
from tools.demo_model.training.latents import cached_latents
from tools.demo_model.training.wordings import Wordings, cached_wordings

_WORDINGS = 12


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step trains on."""

    #: which pictures, and which of them are mirrored [N], both on the CPU
    numbers: Tensor
    mirrored: Tensor
    #: clean latents [N, 4, H/8, W/8] in float32
    latents: Tensor
    #: [N, 77]
    tokens: Tensor
    #: deviation 1, of the latents' shape
    noise: Tensor
    #: how much the errors of each latent count [N, 1, H/8, W/8]
    focus: Tensor


@dataclass(frozen=True, slots=True)
class LatentSet:
    """Latents [pictures, 2, 4, H/8, W/8] and wordings, on the device that trains."""

    latents: Tensor
    wordings: Wordings
    #: how often each picture is shown, relative to others [pictures], on the CPU
    emphasis: Tensor
    #: how much the errors of each latent count [pictures, H/8, W/8]
    focus: Tensor

    def first(self, count: int) -> "LatentSet":
        """The set of the first pictures only."""
        wordings = Wordings(self.wordings.captions[:count], self.wordings.nothing)
        return LatentSet(self.latents[:count], wordings, self.emphasis[:count], self.focus[:count])

    def batch(self, seed: int, step: int, size: int, drop: float) -> Batch:
        """The batch of a step; depends on nothing but the arguments (and the kind of device)."""
        device = self.latents.device
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        numbers = torch.multinomial(self.emphasis, size, replacement=True, generator=random)
        mirrored = torch.randint(2, (size,), generator=random)
        tokens = self.wordings.choose(numbers, drop, random)
        latents = self.latents[numbers.to(device), mirrored.to(device)].float()
        source = torch.Generator(device).manual_seed(seed * 1_000_003 + step)
        noise = torch.randn(latents.shape, generator=source, device=device)
        focus = mirror(self.focus[numbers.to(device), None].float(), mirrored)
        return Batch(numbers, mirrored, latents, tokens, noise, focus)


def mirror(pictures: Tensor, mirrored: Tensor) -> Tensor:
    """Pictures or maps [N, C, H, W], those for which `mirrored` [N] is 1 turned left to right."""
    flips = mirrored.to(pictures.device)[:, None, None, None].bool()
    return torch.where(flips, pictures.flip(-1), pictures)


def load_latent_set(
    folder: Path, size: int, pictures: int, device: str, *, bf16: bool, workers: int
) -> LatentSet:
    """The set of a run's folder, whose `vae.pt` is there; made on the first call."""
    path = folder / f"latents_{size}_{pictures}.npy"
    if not path.exists():
        vae = make_vae().to(device).requires_grad_(False)
        vae.load_state_dict(torch.load(folder / "vae.pt", map_location=device, weights_only=True))
        shown = cached_pictures(folder, TRAIN, pictures, size, workers)
        batch = 64 if device == "cuda" else 4
        cached_latents(path, vae, shown, device, bf16, batch)
    wordings = cached_wordings(folder, pictures, _WORDINGS, workers or 2)
    on_device = Wordings(wordings.captions.to(device), wordings.nothing.to(device))
    latents = torch.from_numpy(np.load(path)).to(device)
    focus = training_focus(pictures, size).to(device)
    return LatentSet(latents, on_device, training_emphasis(pictures), focus)
