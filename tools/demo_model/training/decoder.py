"""The decoder alone goes on, so that the latents in use keep their meaning.

It needs nothing of the diffusion stage but the latents, so both can run at the same time. A little
noise on the latents makes it forgive what the UNet draws.
"""

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from tools.demo_model.networks.models import SCALE_FACTOR, make_vae
from tools.demo_model.networks.soft_norm import harden, soften
from tools.demo_model.pictures.cache import cached_pictures
from tools.demo_model.pictures.dataset import TRAIN, UNSEEN, Picture
from tools.demo_model.training.average import follow
from tools.demo_model.training.latents import to_tensor
from tools.demo_model.training.pace import Pace
from tools.demo_model.training.run_folder import RunFolder, learning_rate
from tools.demo_model.training.vae import (
    picture_loss,
    psnr,
    reconstruct,
    save_weights,
)

_WINDOW = 10  # side of a crop, in latents
_MIDDLE = (0.46, 0.50)  # of a crop's room, where most faces are
_SPREAD = 1 / 6  # of the same; eyes and mouths are what a decoder learns last
_NOISE = 0.04  # of the latents' deviation


@dataclass(frozen=True, slots=True)
class DecoderPlan:
    """How the decoder is trained on; pictures and latents are the diffusion stage's."""

    folder: Path
    device: str
    size: int = 256
    pictures: int = 16000
    steps: int = 4000
    seconds: float | None = None  # set the number of steps by the time they may take
    crop_share: float = 0.93  # of all steps; the rest sees whole pictures, which settles colours
    crop_batch: int = 6
    frame_batch: int = 2
    rate: float = 3e-4
    ema: float = 0.998
    seed: int = 1
    workers: int = 2
    bf16: bool = False
    save_every_s: float = 300.0


def draw_pairs(
    latents: NDArray[np.float16], pictures: Picture, step: int, steps: int, plan: DecoderPlan
) -> tuple[Tensor, Tensor]:
    """Latents with noise and the pictures they stand for, both perhaps cropped."""
    rng = np.random.default_rng([plan.seed, 30, step])
    if step >= steps * plan.crop_share:
        numbers = np.sort(rng.integers(len(latents), size=plan.frame_batch))
        chosen, wanted = latents[numbers], pictures[numbers]
    else:
        windows = []
        room = latents.shape[-1] - _WINDOW
        for number in rng.integers(len(latents), size=plan.crop_batch):
            drawn = room * rng.normal(_MIDDLE, _SPREAD)
            top, left = np.clip(np.rint(drawn), 0, room).astype(int)
            window = np.s_[top : top + _WINDOW, left : left + _WINDOW]
            shown = np.s_[8 * top : 8 * (top + _WINDOW), 8 * left : 8 * (left + _WINDOW)]
            windows.append((latents[number][:, *window], pictures[number][shown]))
        chosen, wanted = (np.stack(part) for part in zip(*windows, strict=True))
    noisy = chosen + _NOISE * rng.standard_normal(chosen.shape, dtype=np.float32)
    return torch.from_numpy(noisy).to(plan.device), to_tensor(wanted, plan.device)


class DecoderRun:
    """The VAE with soft norms, its average, the optimiser and the data of one run."""

    def __init__(self, plan: DecoderPlan) -> None:
        self.plan = plan
        self.folder = RunFolder(plan.folder, "decoder")
        self.vae = make_vae().to(plan.device).requires_grad_(False)
        self.vae.load_state_dict(
            torch.load(plan.folder / "vae.pt", map_location=plan.device, weights_only=True)
        )
        soften(self.vae)
        self.decoder = nn.ModuleList([self.vae.decoder, self.vae.post_quant_conv])
        self.average = copy.deepcopy(self.decoder)
        self.decoder.requires_grad_(True)
        self.optimiser = torch.optim.AdamW(
            self.decoder.parameters(), lr=plan.rate, betas=(0.9, 0.99), fused=True
        )
        self.pictures = cached_pictures(plan.folder, TRAIN, plan.pictures, plan.size, plan.workers)
        path = plan.folder / f"latents_{plan.size}_{plan.pictures}.npy"
        self.latents = np.load(path)[:, 0]
        self.first_step = self._resume()

    def _resume(self) -> int:
        state = self.folder.load()
        if state is None:
            return 0
        self.decoder.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optim"])
        return int(state["step"])

    def save(self, step: int) -> None:
        """Everything that is needed to go on at `step`."""
        self.folder.save(
            {
                "step": step,
                "model": self.decoder.state_dict(),
                "average": self.average.state_dict(),
                "optim": self.optimiser.state_dict(),
            }
        )

    def update(self, step: int, steps: int) -> Tensor:
        """One step of so many; returns the L1 part of the loss."""
        plan = self.plan
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, plan.rate, warm_up=50, fade_share=0.3)
        latent, wanted = draw_pairs(self.latents, self.pictures, step, steps, plan)
        with torch.autocast(plan.device, torch.bfloat16, enabled=plan.bf16):
            made = self.vae.decode(latent / SCALE_FACTOR).sample
            loss, plain = picture_loss(made, wanted)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        self.optimiser.step()
        follow(self.average, self.decoder, step, plan.ema)
        return plain.detach()

    def averaged(self) -> AutoencoderKL:
        """A VAE with soft norms and the averaged decoder."""
        vae = copy.deepcopy(self.vae).requires_grad_(False)
        nn.ModuleList([vae.decoder, vae.post_quant_conv]).load_state_dict(self.average.state_dict())
        return vae


def train_decoder(plan: DecoderPlan) -> AutoencoderKL:
    """From `vae.pt` to a new `vae.pt`; the former stays as `vae.before.pt`."""
    run = DecoderRun(plan)
    unseen = cached_pictures(plan.folder, UNSEEN, 32, plan.size, plan.workers)
    wanted = to_tensor(unseen, plan.device)
    saved, step = time.monotonic(), run.first_step
    pace = Pace(plan.steps, plan.seconds, step)
    bar = tqdm(initial=step, total=plan.steps)
    while step < pace.look(step):
        plain = run.update(step, pace.steps)
        bar.update()
        step += 1
        if step % 20 == 0:
            run.folder.log(step, l1=float(plain))
        if step % 400 == 0:
            made = reconstruct(run.averaged(), wanted)
            run.folder.log(step, psnr=psnr(made, wanted), steps=pace.steps)
            run.folder.sheet("latest", torch.cat([wanted[:16], made[:16]]) / 2 + 0.5, 8)
        if time.monotonic() - saved > plan.save_every_s or step == pace.steps:
            run.save(step)
            saved = time.monotonic()
    vae = run.averaged()
    harden(vae)
    save_weights(vae, plan.folder / "vae.pt")
    return vae
