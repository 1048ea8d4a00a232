"""What the diffusion stage trains on: latents of renderings and of their mirror images."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from tools.demo_model.networks.models import SCALE_FACTOR
from tools.demo_model.pictures.dataset import Picture


def to_tensor(pictures: Picture, device: str) -> Tensor:
    """Bytes [N, H, W, 3] to floats [N, 3, H, W] in -1..1."""
    plain = torch.from_numpy(np.array(pictures)).to(device)
    return (plain.permute(0, 3, 1, 2) / 127.5 - 1.0).contiguous()


@torch.no_grad()
def cached_latents(
    path: Path, vae: AutoencoderKL, pictures: Picture, device: str, bf16: bool, batch: int
) -> NDArray[np.float16]:
    """Scaled latent means [N, 2, 4, H/8, W/8] (as they are, and mirrored); encoded once.

    Bfloat16 products move them by half a hundredth of their deviation, which nobody sees.
    """
    if not path.exists():
        parts = []
        for start in tqdm(range(0, len(pictures), batch), desc="encode"):
            plain = to_tensor(pictures[start : start + batch], device)
            both = torch.stack([plain, plain.flip(-1)], dim=1).flatten(0, 1)
            both = both.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                means = vae.encode(both).latent_dist.mean * SCALE_FACTOR
            parts.append(means.float().cpu().numpy().astype(np.float16))
        latents = np.concatenate(parts)
        draft = path.with_suffix(".draft.npy")
        np.save(draft, latents.reshape(-1, 2, *latents.shape[1:]))
        draft.replace(path)
    return np.load(path)
