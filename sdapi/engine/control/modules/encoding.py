"""Pictures of units as latents."""

from typing import TYPE_CHECKING, Final

import torch
from PIL import Image
from torch import Tensor, nn

from sdapi.engine.checkpoints.precision import wider_vae_type
from sdapi.engine.control.unit import Pixels
from sdapi.engine.latents import vae
from sdapi.engine.latents.init_latent import seeded_generator
from sdapi.errors import NanProduced

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

_NAN_TEXT: Final = (
    "ControlNet failed to use VAE. It makes NaNs in its number type; try --no-half-vae. Use "
    "--disable-nan-check commandline argument to disable this check."
)


def picture_tensor(pixels: Pixels) -> Tensor:
    """A picture [h, w, 3 or 4] as [1, 3, h, w] in [-1, 1], without its mask."""
    return vae.to_tensor([Image.fromarray(pixels[:, :, :3])])


def encode_sampled(sampling: "SamplingPass", picture: Tensor) -> Tensor:
    """A latent of a picture [1, 3, H, W], as img2img has it; [1, C, h, w], float32.

    A float16 VAE that makes NaNs is switched to a wider type for good, as when it decodes; raises
    `NanProduced` where that does not help.
    """
    noise = seeded_generator(sampling.job)
    return _encoded(sampling, picture, noise)


def encode_mode(sampling: "SamplingPass", picture: Tensor) -> Tensor:
    """The most likely latent of a picture; otherwise as `encode_sampled`."""
    return _encoded(sampling, picture, None)


def _encoded(sampling: "SamplingPass", picture: Tensor, noise: torch.Generator | None) -> Tensor:
    components = sampling.components
    module, scale = components.vae, components.scale_factor
    if noise is None:
        latent = vae.encode_mode(module, picture) * scale
    else:
        latent = vae.encode(module, picture, scale, noise)
    if not sampling.checks_nan or not torch.isnan(latent).any():
        return latent
    options = sampling.job.options
    wider = wider_vae_type(
        prefers_bfloat16=options.auto_vae_precision_bfloat16, allowed=options.auto_vae_precision
    )
    if wider is None or module.dtype != torch.float16:
        raise NanProduced(_NAN_TEXT)
    nn.Module.to(module, wider)
    return _encoded(sampling, picture, None if noise is None else seeded_generator(sampling.job))
