"""What the diffusion stage trains on: the latents of many renderings, encoded once."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from tqdm import tqdm

from tools.demo_model.networks.models import SCALE_FACTOR
from tools.demo_model.pictures.dataset import Picture
from tools.demo_model.training.vae import to_tensor


@torch.no_grad()
def cached_latents(
    path: Path, vae: AutoencoderKL, pictures: Picture, device: str, bf16: bool, batch: int = 4
) -> NDArray[np.float16]:
    """Scaled latent means [N, 4, H/8, W/8], in memory; encoded on the first call.

    Bfloat16 products move them by half a hundredth of their deviation, which nobody sees.
    """
    if not path.exists():
        parts = []
        for start in tqdm(range(0, len(pictures), batch), desc="encode"):
            wanted = to_tensor(pictures[start : start + batch], device)
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                means = vae.encode(wanted).latent_dist.mean * SCALE_FACTOR
            parts.append(means.float().cpu().numpy().astype(np.float16))
        draft = path.with_suffix(".part.npy")
        np.save(draft, np.concatenate(parts))
        draft.rename(path)
    return np.load(path)
