"""The last stage: text encoder and UNet learn to predict the noise in captioned latents."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from tqdm import tqdm

from tools.demo_model.networks.models import Networks, make_networks, make_vae
from tools.demo_model.networks.pipeline import draw_pictures
from tools.demo_model.networks.schedule import STEPS, alphas_cumprod
from tools.demo_model.networks.tokens import make_tokenizer
from tools.demo_model.training.average import follow
from tools.demo_model.training.latent_set import Batch, LatentSet, load_latent_set
from tools.demo_model.training.pace import Pace
from tools.demo_model.training.run_folder import RunFolder, learning_rate

_SNR_LIMIT = 5.0  # min-SNR weighting for the nearly clean, Hang et al. 2023
_WEIGHT_LIMIT = 10.0
_SPREAD = 1.1
_SHEET_PROMPTS = (
    "portrait of a woman with red hair",
    "a photo of a man",
    "a red ball on a blue background",
    "a girl with long blonde hair, fair skin and blue eyes in a green shirt on a grey background",
    "a man with a beard, dark skin, short black hair, wearing a white shirt, yellow background",
    "a smiling woman with glasses, brown skin, grey hair, in a purple shirt on a pink background",
    "a yellow star on a black background",
    "a boy with short brown hair wearing an orange shirt, green background",
)


@dataclass(frozen=True, slots=True)
class DiffusionPlan:
    """How text encoder and UNet are trained."""

    folder: Path
    device: str
    size: int = 256
    pictures: int = 16000
    steps: int = 10000
    seconds: float | None = None  # set the number of steps by the time they may take
    until: int | None = None  # stop early here, with the schedule of the whole run
    batch: int = 16
    rate: float = 5e-4
    text_rate: float = 0.1  # times `rate`: words are known already, see `training.text`
    warm_up: int = 300
    fade_share: float = 0.3  # the last part of the run, in which the rate falls to nothing
    drop: float = 0.1  # share of captions replaced by nothing
    ema: float = 0.998
    seed: int = 1
    workers: int = 2
    start_from: Path | None = None  # weights of an earlier run, for another size
    bf16: bool = False
    compiles: bool = False
    save_every_s: float = 300.0
    sheet_every: int = 1000


def diffusion_loss(networks: Networks, batch: Batch, times: Tensor, bf16: bool) -> Tensor:
    """Squared error of the predicted noise, weighted towards eyes and what only a prompt tells."""
    kept = alphas_cumprod().to(times.device)[times]
    signal, spread = kept.sqrt()[:, None, None, None], (1.0 - kept).sqrt()[:, None, None, None]
    noisy = batch.latents * signal + batch.noise * spread
    context = networks.text_encoder(batch.tokens).last_hidden_state
    with torch.autocast(times.device.type, torch.bfloat16, enabled=bf16):
        made = networks.unet(noisy, times, context).sample
    error = ((made.float() - batch.noise).square() * batch.focus).mean(dim=(1, 2, 3))
    return (error * loss_weight(kept / (1.0 - kept))).mean()


def loss_weight(snr: Tensor) -> Tensor:
    """SNR+1 weighting (Salimans & Ho 2022) in terms of the noise, limited at both ends.

    Plain noise errors hardly see a picture's colours: where the noise hides them they change the
    noise by a hundredth, and elsewhere the network reads them off the latent instead of the prompt.
    """
    hidden = ((1.0 + snr) / snr).clamp(max=_WEIGHT_LIMIT)
    return hidden * (_SNR_LIMIT / snr).clamp(max=1.0)


def spread_times(count: int, random: torch.Generator) -> Tensor:
    """Random timesteps, one from each of `count` equally likely parts of a logit-normal spread.

    The middle of the schedule is likeliest (Esser et al. 2024): features of a face form there.
    """
    share = (torch.arange(count) + torch.rand(count, generator=random)) / count
    place = torch.special.ndtri(share.clamp(1e-6, 1.0 - 1e-6)) * _SPREAD
    return (place.sigmoid() * STEPS).long().clamp(max=STEPS - 1)


class DiffusionRun:
    """The networks, their average, the optimiser and the data of one run."""

    def __init__(self, plan: DiffusionPlan) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.folder = RunFolder(plan.folder, f"diffusion{plan.size}")
        self.tokenizer = make_tokenizer()
        self.networks = make_networks().to(plan.device)
        self.average = make_networks().to(plan.device).requires_grad_(False)
        if plan.start_from:
            self.networks.load_state_dict(
                torch.load(plan.start_from, map_location=plan.device, weights_only=True)
            )
        else:
            words = torch.load(plan.folder / "text.pt", map_location=plan.device, weights_only=True)
            self.networks.text_encoder.load_state_dict(words)
        if plan.device == "cuda":  # how its convolutions want it
            for networks in (self.networks, self.average):
                networks.unet.to(memory_format=torch.channels_last)
        if plan.compiles:
            self.networks.unet.compile()
        if plan.bf16 and plan.device == "cpu":  # where fused attention is slow in bfloat16
            self.networks.unet.set_attn_processor(AttnProcessor())
        self.average.load_state_dict(self.networks.state_dict())
        parts = (self.networks.text_encoder, self.networks.unet)
        self.optimiser = torch.optim.AdamW(
            [{"params": part.parameters()} for part in parts],
            lr=plan.rate,
            betas=(0.9, 0.99),
            weight_decay=0.0,
            fused=True,
        )
        self.vae = make_vae().to(plan.device).requires_grad_(False)
        self.vae.load_state_dict(
            torch.load(plan.folder / "vae.pt", map_location=plan.device, weights_only=True)
        )
        self.first_step = self._resume()

    def _resume(self) -> int:
        state = self.folder.load()
        if state is None:
            return 0
        self.networks.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optim"])
        return int(state["step"])

    def save(self, step: int) -> None:
        """Everything that is needed to go on at `step`, and the averaged weights by themselves."""
        self.folder.save(
            {
                "step": step,
                "model": self.networks.state_dict(),
                "average": self.average.state_dict(),
                "optim": self.optimiser.state_dict(),
            }
        )
        torch.save(self.average.state_dict(), self.folder.path / f"{self.folder.stage}.ema.pt")

    def update(self, step: int, steps: int, data: LatentSet) -> Tensor:
        """One step of so many; its batch depends on nothing but the plan and the step's number."""
        plan = self.plan
        batch = data.batch(plan.seed, step, plan.batch, plan.drop)
        random = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
        times = spread_times(plan.batch, random).to(plan.device)
        rate = learning_rate(step, steps, plan.rate, plan.warm_up, plan.fade_share)
        for group, share in zip(self.optimiser.param_groups, (plan.text_rate, 1.0), strict=True):
            group["lr"] = rate * share
        loss = diffusion_loss(self.networks, batch, times, plan.bf16)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimiser.step()
        follow(self.average, self.networks, step, plan.ema)
        return loss.detach()

    def draw_sheet(self, step: int) -> None:
        """Fixed prompts and noise, drawn with the averaged weights."""
        prompts = [p for p in _SHEET_PROMPTS for _ in range(2)]
        pictures = draw_pictures(
            self.average, self.vae, self.tokenizer, prompts, size=self.plan.size, seed=7
        )
        self.folder.sheet(f"{step:06d}", pictures, 8)


def train_diffusion(plan: DiffusionPlan) -> DiffusionRun:
    """Train, or continue to train, until the plan's last step."""
    data = load_latent_set(
        plan.folder, plan.size, plan.pictures, plan.device, bf16=plan.bf16, workers=plan.workers
    )
    run = DiffusionRun(plan)
    saved, losses, step = time.monotonic(), [], run.first_step
    pace = Pace(plan.steps, plan.seconds, step)
    bar = tqdm(initial=step, total=plan.steps)
    while step < (last := plan.until or pace.look(step)):
        losses.append(run.update(step, pace.steps, data))
        bar.update()
        step += 1
        if step % 50 == 0:
            mean = float(torch.stack(losses[-50:]).mean())
            bar.set_postfix(loss=f"{mean:.4f}")
            run.folder.log(step, loss=mean, steps=pace.steps)
            losses.clear()
        if step % plan.sheet_every == 0 or step == last:
            run.draw_sheet(step)
        if time.monotonic() - saved > plan.save_every_s or step == last:
            run.save(step)
            saved = time.monotonic()
    return run
