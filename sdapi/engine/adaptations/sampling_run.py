"""Everything that acts on the UNet during one sampler run, and on the VAE while it decodes."""

import random
from collections.abc import Generator
from contextlib import contextmanager

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdapi.engine.adaptations.hooks import hooks
from sdapi.engine.adaptations.hypertile import Tiling, tile_unet, tile_vae
from sdapi.engine.adaptations.token_merging import merge_tokens
from sdapi.engine.adaptations.upcast import upcast_attention
from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.jobs.job import Job


@contextmanager
def adapted_unet(components: Components, job: Job, generator: random.Random) -> Generator[None]:
    """The UNet as the job's options want it, for as long as the block runs.

    `generator` chooses Hypertile's tiles; one for all of a job.
    """
    with hooks() as placed:
        if job.token_merging_ratio > 0:
            merge_tokens(placed, components.unet, job.token_merging_ratio)
        if job.hypertile.unet.enabled:
            tiling = Tiling((job.width, job.height), job.hypertile.unet, generator)
            is_sdxl = components.family is Family.SDXL
            tile_unet(placed, components.unet, tiling, is_sdxl=is_sdxl)
        if job.options.upcast_attn:
            upcast_attention(placed, components.unet)
        yield


@contextmanager
def adapted_vae(vae: AutoencoderKL, job: Job, generator: random.Random) -> Generator[None]:
    """The decoder as the job's options want it."""
    with hooks() as placed:
        if job.hypertile.vae.enabled:
            tile_vae(placed, vae, Tiling((job.width, job.height), job.hypertile.vae, generator))
        yield
