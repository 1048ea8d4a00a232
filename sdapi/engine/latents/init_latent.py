"""img2img's pictures as latents, with what a mask makes of them (contract: webui-generation 10.3
and 10.4)."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.jobs.init_images import InitImages, InpaintMask, MaskedContent
from sdapi.engine.jobs.job import Job
from sdapi.engine.latents import vae
from sdapi.engine.sampling.denoising.blend import Blend, LinearBlend
from sdapi.engine.sampling.denoising.soft_inpainting import SoftBlend
from sdapi.engine.sampling.noise import ImageNoise, NoiseSource, Seeds
from sdapi.images import resize_to


@dataclass(frozen=True, slots=True)
class InitLatent:
    """What every batch of a job starts from: [batch_size, C, h, w], and what of it stays."""

    latent: Tensor
    blend: Blend | None


def encode_init(
    components: Components,
    job: Job,
    init: InitImages,
    source: NoiseSource,
    generator: torch.Generator,
) -> InitLatent:
    """Encode a job's init pictures, once for all of its batches."""
    pixels = vae.to_tensor(init.images)
    latent = encode_pixels(components, job, pixels, generator, latent_resize=init.latent_resize)
    latent = latent.expand(job.batch_size, -1, -1, -1).to(source.device)
    if init.mask is None:
        return InitLatent(latent, None)
    repaint = latent_mask(init.mask, job.latent_size).to(source.device)
    if init.mask.content is MaskedContent.NOISE:
        latent = latent * (1 - repaint) + _first_noise(latent, job, source) * repaint
    elif init.mask.content is MaskedContent.NOTHING:
        latent = latent * (1 - repaint)
    if init.mask.soft is None:
        return InitLatent(latent, LinearBlend(latent, repaint))
    return InitLatent(latent, SoftBlend(latent, repaint, init.mask.soft))


def encode_pixels(
    components: Components,
    job: Job,
    pixels: Tensor,
    generator: torch.Generator,
    *,
    latent_resize: bool = False,
) -> Tensor:
    """Latents [B, C, h, w] of pictures [B, 3, H, W] in [-1, 1], sampled.

    Pictures of another size than the job's get theirs by interpolating the latents.
    """
    latent = vae.encode(components.vae, pixels, components.scale_factor, generator, components.nans)
    if latent_resize:
        latent = torch.nn.functional.interpolate(latent, size=job.latent_size, mode="bilinear")
    return latent


def seeded_generator(job: Job) -> torch.Generator:
    """Noise for the VAE's posterior.

    The reference takes what its previous job left; ours is that of a job with the same seed before.
    """
    return torch.Generator().manual_seed(job.seeds[0] & 0x7FFFFFFFFFFFFFFF)


def latent_mask(mask: InpaintMask, size: tuple[int, int]) -> Tensor:
    """1 where latents are drawn anew: the mask at a latent size (height, width)."""
    height, width = size
    image = mask.image if mask.latent_image is None else mask.latent_image
    small = resize_to(image, (width, height), Image.Resampling.BICUBIC)
    shares = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255.0)
    return shares.round() if mask.rounds else shares


def _first_noise(latent: Tensor, job: Job, source: NoiseSource) -> Tensor:
    """The first draw for the seeds of the job's first batch, whatever variation they have."""
    seeds = Seeds(job.seeds[: len(latent)], job.subseeds[: len(latent)])
    channels, height, width = latent.shape[1:]
    return ImageNoise(source, (channels, height, width), seeds).first()
