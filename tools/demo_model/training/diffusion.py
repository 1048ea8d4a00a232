"""The last stage: text encoder and UNet learn to predict the noise in captioned latents."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from tools.demo_model.networks.models import Networks, make_networks, make_vae
from tools.demo_model.networks.pipeline import draw_pictures
from tools.demo_model.networks.schedule import STEPS, alphas_cumprod
from tools.demo_model.networks.tokens import encode, make_tokenizer
from tools.demo_model.pictures.captions import caption_nothing
from tools.demo_model.pictures.dataset import TRAIN, cached_pictures, caption, draw_sample
from tools.demo_model.training.average import follow
from tools.demo_model.training.latents import cached_latents
from tools.demo_model.training.run_folder import RunFolder, learning_rate

_SNR_LIMIT = 5.0  # min-SNR weighting for the nearly clean, Hang et al. 2023
_WEIGHT_LIMIT = 10.0
_NOISY_BIAS = 0.75
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
    size: int = 128
    pictures: int = 9000
    steps: int = 10000
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
    save_every_s: float = 300.0
    sheet_every: int = 1000


def draw_captions(
    plan: DiffusionPlan, numbers: Iterable[int], rng: np.random.Generator
) -> list[str]:
    """A fresh wording for every picture, and now and then nothing."""
    texts = [caption(draw_sample(TRAIN, int(number)), rng) for number in numbers]
    return [caption_nothing(rng) if rng.random() < plan.drop else text for text in texts]


def diffusion_loss(
    networks: Networks,
    latents: Tensor,
    tokens: Tensor,
    noise: Tensor,
    times: Tensor,
    bf16: bool,
) -> Tensor:
    """Squared error of the predicted noise, weighted towards what only the prompt can tell."""
    kept = alphas_cumprod().to(latents.device)[times]
    signal, spread = kept.sqrt()[:, None, None, None], (1.0 - kept).sqrt()[:, None, None, None]
    context = networks.text_encoder(tokens).last_hidden_state
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=bf16):
        made = networks.unet(latents * signal + noise * spread, times, context).sample
    error = (made.float() - noise).square().mean(dim=(1, 2, 3))
    return (error * loss_weight(kept / (1.0 - kept))).mean()


def loss_weight(snr: Tensor) -> Tensor:
    """SNR+1 weighting (Salimans & Ho 2022) in terms of the noise, limited at both ends.

    Plain noise errors hardly see a picture's colours: where the noise hides them they change the
    noise by a hundredth, and elsewhere the network reads them off the latent instead of the prompt.
    """
    hidden = ((1.0 + snr) / snr).clamp(max=_WEIGHT_LIMIT)
    return hidden * (_SNR_LIMIT / snr).clamp(max=1.0)


def spread_times(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Random timesteps, one from each of `count` equally likely parts of the schedule.

    Noisy ones are likelier, since colours and framing are decided there.
    """
    share = (np.arange(count) + rng.random(count)) / count
    return (share**_NOISY_BIAS * STEPS).astype(np.int64)


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
            self.networks.load_state_dict(torch.load(plan.start_from, weights_only=True))
        else:
            words = torch.load(plan.folder / "text.pt", weights_only=True)
            self.networks.text_encoder.load_state_dict(words)
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
        self.vae.load_state_dict(torch.load(plan.folder / "vae.pt", weights_only=True))
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

    def load_latents(self) -> NDArray[np.float16]:
        """Latents of the run's pictures; both are made on the first call."""
        plan, suffix = self.plan, f"{self.plan.size}_{self.plan.pictures}.npy"
        latents = plan.folder / f"latents_{suffix}"
        if latents.exists():
            return np.load(latents)
        cache = plan.folder / f"train_{suffix}"
        pictures = cached_pictures(cache, TRAIN, plan.pictures, plan.size, plan.workers)
        return cached_latents(latents, self.vae, pictures, plan.device, plan.bf16)

    def update(self, step: int, latents: NDArray[np.float16]) -> float:
        """One step; its batch depends on nothing but the plan and the step's number."""
        plan = self.plan
        rng = np.random.default_rng([plan.seed, 20, step])
        numbers = rng.integers(len(latents), size=plan.batch)
        tokens = encode(self.tokenizer, draw_captions(plan, numbers, rng)).to(plan.device)
        clean = torch.from_numpy(latents[numbers]).to(plan.device).float()
        drawn = rng.standard_normal(clean.shape, dtype=np.float32)
        noise = torch.from_numpy(drawn).to(plan.device)
        times = torch.from_numpy(spread_times(rng, plan.batch)).to(plan.device)
        rate = learning_rate(step, plan.steps, plan.rate, plan.warm_up, plan.fade_share)
        for group, share in zip(self.optimiser.param_groups, (plan.text_rate, 1.0), strict=True):
            group["lr"] = rate * share
        loss = diffusion_loss(self.networks, clean, tokens, noise, times, plan.bf16)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimiser.step()
        follow(self.average, self.networks, step, plan.ema)
        return float(loss.detach())

    def draw_sheet(self, step: int) -> None:
        """Fixed prompts and noise, drawn with the averaged weights."""
        prompts = [p for p in _SHEET_PROMPTS for _ in range(2)]
        pictures = draw_pictures(
            self.average, self.vae, self.tokenizer, prompts, size=self.plan.size, seed=7
        )
        self.folder.sheet(f"{step:06d}", pictures, 8)


def train_diffusion(plan: DiffusionPlan) -> DiffusionRun:
    """Train, or continue to train, until the plan's last step."""
    run = DiffusionRun(plan)
    latents = run.load_latents()
    saved, losses = time.monotonic(), []
    last = plan.until or plan.steps
    bar = tqdm(range(run.first_step, last), initial=run.first_step, total=plan.steps)
    for step in bar:
        losses.append(run.update(step, latents))
        if step % 50 == 49:
            mean = float(np.mean(losses[-50:]))
            bar.set_postfix(loss=f"{mean:.4f}")
            run.folder.log(step + 1, loss=mean)
        if step % plan.sheet_every == plan.sheet_every - 1:
            run.draw_sheet(step + 1)
        if time.monotonic() - saved > plan.save_every_s or step == last - 1:
            run.save(step + 1)
            saved = time.monotonic()
    return run
