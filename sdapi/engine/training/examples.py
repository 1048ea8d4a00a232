"""What is learnt in which order: pictures, their latents, and noise, all by number and seed.

Example `k` of a training depends on the seed and `k` alone, so a training that goes on after a
crash sees what it would have seen.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import TRAIN_STEPS, Components
from sdapi.engine.checkpoints.precision import NANS_PASS
from sdapi.engine.latents import vae as latents
from sdapi.engine.training.job import TrainingJob
from sdapi.errors import ModelUnusable, NanProduced

#: places along the longer side at which a picture is cut; few, so that latents can be kept
_CUTS = 4


@dataclass(frozen=True, slots=True)
class Example:
    """One picture as it is learnt once. Tensors are on the CPU."""

    #: scaled latent [1, C, h, w]
    latent: Tensor
    noise: Tensor
    #: 0 .. 999
    timestep: int
    caption: str
    #: pixels: (height, width) before it was cut, and (top, left) of the cut
    size: tuple[int, int]
    crop: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A picture scaled, cut and perhaps mirrored: mean and deviation of its latent."""

    mean: Tensor
    std: Tensor
    size: tuple[int, int]
    crop: tuple[int, int]


@dataclass(slots=True)
class Examples:
    """The examples of a job; every cut of a picture is encoded when it first comes up."""

    job: TrainingJob
    components: Components
    _cuts: dict[tuple[int, int, bool], _Cut] = field(
        default_factory=dict[tuple[int, int, bool], _Cut]
    )

    def example(self, number: int) -> Example:
        """The `number`-th of the training, counted from 0.

        Raises `ModelUnusable` for a picture that cannot be read, `NanProduced`.
        """
        epoch, position = divmod(number, len(self.job.pictures))
        order = _generator(self.job.seed, 0, epoch)
        index = int(torch.randperm(len(self.job.pictures), generator=order)[position])
        chance = _generator(self.job.seed, 1, number)
        place = int(torch.randint(_CUTS, (1,), generator=chance))
        mirrored = bool(torch.rand(1, generator=chance) < 0.5) and self.job.flips
        cut = self._cut(index, place, mirrored)
        scale = self.components.scale_factor
        latent = (cut.mean + cut.std * torch.randn(cut.mean.shape, generator=chance)) * scale
        return Example(
            latent,
            torch.randn(latent.shape, generator=chance),
            int(torch.randint(TRAIN_STEPS, (1,), generator=chance)),
            self.job.pictures[index].caption,
            cut.size,
            cut.crop,
        )

    def _cut(self, index: int, place: int, mirrored: bool) -> _Cut:
        key = (index, place, mirrored)
        if key not in self._cuts:
            self._cuts[key] = self._encoded(index, place, mirrored)
        return self._cuts[key]

    def _encoded(self, index: int, place: int, mirrored: bool) -> _Cut:
        side, path = self.job.resolution, self.job.pictures[index].path
        try:
            with Image.open(path) as file:
                picture = file.convert("RGB")
        except OSError as error:
            raise ModelUnusable(f"{path.name}: no picture to train on ({error})") from error
        scaled = _scaled(picture, side)
        top, left = (round(slack * place / (_CUTS - 1)) for slack in _slack(scaled, side))
        piece = scaled.crop((left, top, left + side, top + side))
        if mirrored:
            piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            left = scaled.width - side - left
        mean, std = _moments(self.components.vae, latents.to_tensor([piece]))
        return _Cut(mean, std, (picture.height, picture.width), (top, left))


def _scaled(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its shorter side at `side`."""
    scale = side / min(picture.size)
    size = (max(round(picture.width * scale), side), max(round(picture.height * scale), side))
    return picture.resize(size, Image.Resampling.BILINEAR)


def _slack(picture: Image.Image, side: int) -> tuple[int, int]:
    """How far a square can be moved: down, and to the right."""
    return picture.height - side, picture.width - side


def _moments(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation on the CPU; a half-precision VAE that makes NaNs is widened for good."""
    with torch.no_grad():
        mean, std = latents.moments(vae, pixels, NANS_PASS)
        if not mean.isfinite().all() and vae.dtype != torch.float32:
            torch.nn.Module.to(vae, torch.float32)  # diffusers' wrapper of `to` hides its types
            mean, std = latents.moments(vae, pixels, NANS_PASS)
    if not mean.isfinite().all():
        raise NanProduced("the VAE made NaNs of a picture to train on")
    return mean.cpu(), std.cpu()


def _generator(seed: int, purpose: int, number: int) -> torch.Generator:
    """A generator for one purpose and number; neighbours are unrelated."""
    state = np.random.SeedSequence([abs(seed), purpose, number]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))
