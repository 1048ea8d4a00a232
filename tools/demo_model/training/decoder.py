"""An optional last stage: the decoder alone goes on, so that latents in use keep their meaning."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from tqdm import tqdm

from tools.demo_model.networks.models import SCALE_FACTOR, make_vae
from tools.demo_model.networks.soft_norm import harden, soften
from tools.demo_model.pictures.dataset import TRAIN, cached_pictures
from tools.demo_model.training.run_folder import RunFolder, learning_rate
from tools.demo_model.training.vae import picture_loss, save_weights, to_tensor


@dataclass(frozen=True, slots=True)
class DecoderPlan:
    """How the decoder is trained on; pictures and latents are the second stage's."""

    folder: Path
    device: str
    size: int = 128
    pictures: int = 3000
    steps: int = 200
    batch: int = 4
    rate: float = 2e-4
    seed: int = 1
    workers: int = 2


def train_decoder(plan: DecoderPlan) -> AutoencoderKL:
    """From `vae.pt` to a new `vae.pt`; the former stays as `vae.before.pt`."""
    run = RunFolder(plan.folder, "decoder")
    vae = make_vae().to(plan.device).requires_grad_(False)
    vae.load_state_dict(torch.load(plan.folder / "vae.pt", weights_only=True))
    soften(vae)
    decoder = nn.ModuleList([vae.decoder, vae.post_quant_conv]).requires_grad_(True)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=plan.rate, betas=(0.9, 0.99), fused=True)
    suffix = f"{plan.size}_{plan.pictures}.npy"
    cache = plan.folder / f"train_{suffix}"
    pictures = cached_pictures(cache, TRAIN, plan.pictures, plan.size, plan.workers)
    latents = np.load(plan.folder / f"latents_{suffix}")
    for step in tqdm(range(plan.steps)):
        rate = learning_rate(step, plan.steps, plan.rate, warm_up=10, fade_share=0.6)
        for group in optimiser.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([plan.seed, 30, step])
        numbers = np.sort(rng.integers(len(latents), size=plan.batch))
        latent = torch.from_numpy(latents[numbers]).to(plan.device).float() / SCALE_FACTOR
        with torch.autocast(plan.device, torch.bfloat16, enabled=plan.device == "cuda"):
            made = vae.decode(latent).sample
            loss, plain = picture_loss(made, to_tensor(pictures[numbers], plan.device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 0:
            run.log(step, l1=float(plain.detach()))
    harden(vae)
    save_weights(vae, plan.folder / "vae.pt")
    return vae
