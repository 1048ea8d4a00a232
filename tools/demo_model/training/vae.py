"""The first stage: a VAE that learns to keep renderings through a 64-fold smaller latent."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from tools.demo_model.networks.checkpoint import load_checkpoint
from tools.demo_model.networks.models import SCALE_FACTOR, make_vae
from tools.demo_model.networks.soft_norm import harden, set_soft_eps, soften
from tools.demo_model.networks.vae_start import carry_colours
from tools.demo_model.pictures.cache import cached_pictures
from tools.demo_model.pictures.dataset import TRAIN, UNSEEN, Picture
from tools.demo_model.training.latents import to_tensor
from tools.demo_model.training.pace import Pace
from tools.demo_model.training.run_folder import RunFolder, learning_rate

_EDGE_WEIGHT, _TONE_WEIGHT, _KL_WEIGHT = 0.5, 0.5, 1e-4
_UNSEEN = 64


@dataclass(frozen=True, slots=True)
class VaePlan:
    """How the VAE is trained."""

    folder: Path
    device: str
    size: int = 256
    pictures: int = 3072
    steps: int = 3000
    seconds: float | None = None  # set the number of steps by the time they may take
    until: int | None = None  # stop early here, with the schedule of the whole run
    crop_share: float = 0.9  # of all steps; the rest sees whole pictures, which settles colours
    crop: int = 64  # side of the crops, in pixels
    crop_batch: int = 6
    frame_batch: int = 3
    rate: float = 3e-4
    seed: int = 1
    workers: int = 2
    start_from: Path | None = None  # a checkpoint whose VAE is trained on
    bf16: bool = False
    save_every_s: float = 300.0
    look_every: int = 200  # steps from one look at unseen pictures to the next


def draw_batch(pictures: Picture, step: int, steps: int, plan: VaePlan) -> Picture:
    """The batch of one step; depends on nothing but the plan and the step's number."""
    rng = np.random.default_rng([plan.seed, 10, step])
    if step >= steps * plan.crop_share:
        chosen = pictures[np.sort(rng.integers(len(pictures), size=plan.frame_batch))]
        return chosen[:, :, ::-1] if rng.random() < 0.5 else chosen
    crops = []
    room = plan.size - plan.crop
    for index in rng.integers(len(pictures), size=plan.crop_batch):
        drawn = rng.normal(room / 2, plan.size / 7, size=2)  # towards the middle, where faces are
        top, left = np.clip(np.rint(drawn), 0, room).astype(int)
        crop = pictures[index, top : top + plan.crop, left : left + plan.crop]
        crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return np.stack(crops)


def edge_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """L1 between horizontal and vertical differences."""
    across = (made.diff(dim=-1) - wanted.diff(dim=-1)).abs().mean()
    return across + (made.diff(dim=-2) - wanted.diff(dim=-2)).abs().mean()


def picture_loss(made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """L1 + edges + mean colours; also the L1 part alone for the log."""
    plain = (made - wanted).abs().mean()
    tone = (F.avg_pool2d(made, 8) - F.avg_pool2d(wanted, 8)).abs().mean()
    return plain + _EDGE_WEIGHT * edge_loss(made, wanted) + _TONE_WEIGHT * tone, plain


def vae_loss(vae: AutoencoderKL, wanted: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """How far a picture comes back from its latent, and a little KL."""
    posterior = vae.encode(wanted).latent_dist
    loss, plain = picture_loss(vae.decode(posterior.sample(generator=noise)).sample, wanted)
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return loss + _KL_WEIGHT * kl, plain


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, wanted: Tensor, batch: int = 8) -> Tensor:
    """Encode to the latent's mean and decode."""
    parts = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in wanted.split(batch)]
    return torch.cat(parts).clamp(-1.0, 1.0)


def psnr(made: Tensor, wanted: Tensor) -> float:
    """Mean over pictures, in dB, for values in -1..1."""
    error = (made - wanted).square().mean(dim=(1, 2, 3))
    return float((10.0 * torch.log10(4.0 / error)).mean())


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pictures: Tensor, batch: int = 16) -> None:
    """Fold a per-channel shift and scale into the VAE's 1x1 convolutions.

    Afterwards latents times SCALE_FACTOR have mean 0 and deviation 1 in every channel, and the
    decoder undoes it, so the checkpoint can carry the scale factor that every SD 1 loader assumes.
    """
    means = torch.cat([vae.encode(part).latent_dist.mean for part in pictures.split(batch)])
    shift = means.mean(dim=(0, 2, 3))
    gain = 1.0 / (SCALE_FACTOR * means.std(dim=(0, 2, 3)))
    both = torch.cat([gain, torch.ones_like(gain)])
    vae.quant_conv.weight.mul_(both[:, None, None, None])
    vae.quant_conv.bias.sub_(torch.cat([shift, torch.zeros_like(shift)])).mul_(both)
    vae.quant_conv.bias.add_(torch.cat([torch.zeros_like(gain), 2.0 * gain.log()]))
    inverse = vae.post_quant_conv.weight.clone()  # [4, 4, 1, 1], takes the former latents
    vae.post_quant_conv.bias.add_((inverse[:, :, 0, 0] * shift).sum(dim=1))
    vae.post_quant_conv.weight.copy_(inverse / gain[None, :, None, None])


def train_vae(plan: VaePlan) -> AutoencoderKL:
    """Train, or continue to train, and leave `vae.pt` in the run's folder."""
    torch.manual_seed(plan.seed)
    run = RunFolder(plan.folder, "vae")
    vae = _first_weights(plan).to(plan.device)
    if plan.device == "cuda":  # how its convolutions want it
        vae.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=plan.rate, betas=(0.9, 0.99), fused=True)
    first = _resume(run, vae, optimiser)
    pictures = cached_pictures(plan.folder, TRAIN, plan.pictures, plan.size, plan.workers)
    unseen = cached_pictures(plan.folder, UNSEEN, _UNSEEN, plan.size, plan.workers)
    wanted = to_tensor(unseen, plan.device)
    saved, pace = time.monotonic(), Pace(plan.steps, plan.seconds, first)
    bar, step = tqdm(initial=first, total=plan.steps), first
    while step < (last := plan.until or pace.look(step)):
        plain = _step(vae, optimiser, pictures, step, pace.steps, plan)
        bar.update()
        step += 1
        if step % 20 == 0:
            bar.set_postfix(l1=f"{float(plain):.4f}")
            run.log(step, l1=float(plain))
        if step % plan.look_every == 0:
            made = reconstruct(vae, wanted)
            run.log(step, psnr=psnr(made, wanted), steps=pace.steps)
            run.sheet("latest", torch.cat([wanted[:16], made[:16]]) / 2 + 0.5, 8)
        if time.monotonic() - saved > plan.save_every_s or step == last:
            run.save({"step": step, "model": vae.state_dict(), "optim": optimiser.state_dict()})
            saved = time.monotonic()
    if plan.until:
        return vae
    normalise_latents(vae, to_tensor(pictures[:256], plan.device))
    harden(vae)
    save_weights(vae, plan.folder / "vae.pt")
    run.log(step, final_psnr=psnr(reconstruct(vae, wanted), wanted))
    return vae


def save_weights(vae: AutoencoderKL, path: Path) -> None:
    """Write the weights; the file's former content stays beside it."""
    if path.exists():
        path.replace(path.with_suffix(".before.pt"))
    torch.save(vae.state_dict(), path)


def _first_weights(plan: VaePlan) -> AutoencoderKL:
    """An average of colours, or the VAE of an earlier checkpoint."""
    if plan.start_from is None:
        vae = make_vae()
        set_soft_eps(vae)
        carry_colours(vae)
        return vae
    _, vae = load_checkpoint(plan.start_from)
    soften(vae)
    return vae.train().requires_grad_(True)


def _step(
    vae: AutoencoderKL,
    optimiser: torch.optim.Optimizer,
    pictures: Picture,
    step: int,
    steps: int,
    plan: VaePlan,
) -> Tensor:
    """One update; returns the L1 part of the loss."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(step, steps, plan.rate, warm_up=60, fade_share=0.4)
    noise = torch.Generator(plan.device).manual_seed(plan.seed * 1_000_003 + step)
    wanted = to_tensor(draw_batch(pictures, step, steps, plan), plan.device)
    with torch.autocast(plan.device, torch.bfloat16, enabled=plan.bf16):
        loss, plain = vae_loss(vae, wanted, noise)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimiser.step()
    return plain.detach()


def _resume(run: RunFolder, vae: AutoencoderKL, optimiser: torch.optim.Optimizer) -> int:
    """Load the run's state; the number of the first step to do."""
    state = run.load()
    if state is None:
        return 0
    vae.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optim"])
    return int(state["step"])
