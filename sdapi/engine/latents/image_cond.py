"""The further input channels of inpainting and instruct-pix2pix checkpoints.

Contract: webui-generation 8 and 10.9.
"""

import numpy as np
import torch
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.jobs.init_images import InitImages, InpaintMask
from sdapi.engine.jobs.job import Job
from sdapi.engine.latents import vae
from sdapi.engine.latents.init_latent import encode_pixels
from sdapi.errors import ModelUnusable
from sdapi.images import CONTAIN, resize_image


def image_conditioning(
    components: Components, job: Job, device: torch.device, generator: torch.Generator
) -> Tensor | None:
    """What a checkpoint sees beside the latent [batch_size, K, h, w]; None where it is nothing.

    Raises `ModelUnusable` for a checkpoint that edits pictures in a job without any.
    """
    if components.is_instruct_pix2pix:
        if job.init is None:
            raise ModelUnusable("instruct-pix2pix checkpoints edit pictures: use img2img")
        cond = picture_mode(components, job, job.init)
    elif components.is_inpainting and job.init is None:
        cond = everything_masked(components, job, generator)
    elif components.is_inpainting:
        cond = _masked_init(components, job, generator)
    else:
        return None
    return cond.expand(job.batch_size, -1, -1, -1).to(device)


def everything_masked(components: Components, job: Job, generator: torch.Generator) -> Tensor:
    """txt2img with an inpainting checkpoint: a full mask over the encoding of mid-grey."""
    height, width = job.latent_size
    grey = torch.zeros(1, 3, height * 8, width * 8)
    latent = encode_pixels(components, job, grey, generator)
    mask = torch.ones(1, 1, height, width, device=latent.device)
    return torch.cat([mask, latent], dim=1)


def masked_picture(
    components: Components,
    job: Job,
    pixels: Tensor,
    mask: Tensor,
    generator: torch.Generator,
    *,
    latent_resize: bool = False,
) -> Tensor:
    """The mask [1, 1, H, W] and the encoded pictures [B, 3, H, W] in [-1, 1], masked pixels blended
    towards mid-grey as option `inpainting_mask_weight` says."""
    hidden = torch.lerp(pixels, pixels * (1.0 - mask), job.options.inpainting_mask_weight)
    latent = encode_pixels(components, job, hidden, generator, latent_resize=latent_resize)
    small = torch.nn.functional.interpolate(mask, size=job.latent_size)
    return torch.cat([small.expand(len(latent), -1, -1, -1).to(latent.device), latent], dim=1)


def picture_mode(components: Components, job: Job, init: InitImages) -> Tensor:
    """The most likely latents of the pictures, without the scale factor."""
    latent = vae.encode_mode(components.vae, vae.to_tensor(init.images), components.nans)
    if not init.latent_resize:
        return latent
    return torch.nn.functional.interpolate(latent, size=job.latent_size, mode="bilinear")


def _masked_init(components: Components, job: Job, generator: torch.Generator) -> Tensor:
    init = job.init
    assert init is not None
    pixels = vae.to_tensor(init.images)
    if init.mask is None:
        mask = torch.ones(1, 1, *pixels.shape[-2:])
    else:
        mask = _pixel_mask(init.mask, init.images[0].size)
    return masked_picture(
        components, job, pixels, mask, generator, latent_resize=init.latent_resize
    )


def _pixel_mask(mask: InpaintMask, size: tuple[int, int]) -> Tensor:
    """The mask in the pixels of pictures of a size [1, 1, H, W], not the job's in resize mode 3."""
    image = mask.image
    if image.size != size:
        image = resize_image(image, CONTAIN, size).convert("L")
    shares = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0)[None, None]
    return shares.round() if mask.rounds else shares
