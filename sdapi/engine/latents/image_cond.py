"""The further input channels of inpainting checkpoints (contract: webui-generation 8 and 10.9)."""

import torch
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.job import Job
from sdapi.engine.latents import vae
from sdapi.errors import NotBuilt


def image_conditioning(
    components: Components, job: Job, count: int, device: torch.device
) -> Tensor | None:
    """Mask and masked picture as latents [count, 1 + C, h, w]; None where a checkpoint takes none.

    txt2img: everything is to be painted, over the encoding of mid-grey. img2img without a mask:
    a full mask.
    """
    if components.is_instruct_pix2pix:
        raise NotBuilt("sd_model_checkpoint: instruct-pix2pix checkpoints are not available yet")
    if not components.is_inpainting:
        return None
    height, width = job.latent_size
    generator = torch.Generator().manual_seed(job.seeds[0] & 0x7FFFFFFFFFFFFFFF)
    grey = torch.zeros(1, 3, height * 8, width * 8)
    latent = vae.encode(components.vae, grey, components.scale_factor, generator)
    mask = torch.ones(1, 1, height, width, device=latent.device)
    return torch.cat([mask, latent], dim=1).expand(count, -1, -1, -1).to(device)
