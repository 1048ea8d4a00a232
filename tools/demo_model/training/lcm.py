"""An LCM-LoRA for the demo model: four to eight steps in place of twenty.

Latent consistency distillation (Luo et al. 2023) into low-rank weights: what the student makes of
a noisy latent shall equal what it makes of the less noisy one that a guided DDIM step of the
teacher, the same UNet without the low-rank weights, leads to.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from torch import Tensor, nn
from tqdm import tqdm

from tools.demo_model.networks.models import make_networks
from tools.demo_model.networks.schedule import STEPS, alphas_cumprod
from tools.demo_model.networks.tokens import encode, make_tokenizer
from tools.demo_model.training.latent_set import Batch, LatentSet, load_latent_set
from tools.demo_model.training.pace import Pace
from tools.demo_model.training.run_folder import RunFolder, learning_rate

_SKIP = 20  # timesteps that one step of the teacher covers
_SIGMA_DATA, _TIME_SCALE = 0.5, 10.0
_HUBER = 0.001
_LAYERS = [
    *("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
]


@dataclass(frozen=True, slots=True)
class LCMPlan:
    """How the low-rank weights are trained."""

    folder: Path
    device: str
    size: int = 256
    pictures: int = 16000
    steps: int = 2000
    seconds: float | None = None  # set the number of steps by the time they may take
    batch: int = 16
    rank: int = 32
    rate: float = 3e-4
    warm_up: int = 100
    fade_share: float = 0.4
    #: CFG scales that the teacher is guided by
    guidance: tuple[float, float] = (3.0, 6.0)
    seed: int = 1
    workers: int = 2
    bf16: bool = False
    save_every_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Level:
    """The noise levels of a batch: timesteps [N] and what is kept of the signal [N, 1, 1, 1]."""

    times: Tensor
    kept: Tensor

    def clean(self, noisy: Tensor, noise: Tensor) -> Tensor:
        """The clean latent that a predicted noise leaves."""
        return (noisy - (1.0 - self.kept).sqrt() * noise) / self.kept.sqrt()

    def consistent(self, noisy: Tensor, noise: Tensor) -> Tensor:
        """The consistency function: the latent itself at time 0, the clean one far from it."""
        scaled = self.times[:, None, None, None] * _TIME_SCALE
        skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        out = scaled / (scaled**2 + _SIGMA_DATA**2).sqrt()
        return skip * noisy + out * self.clean(noisy, noise)


class LCMRun:
    """Student and teacher, which share one UNet."""

    def __init__(self, plan: LCMPlan) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.folder = RunFolder(plan.folder, f"lcm{plan.size}")
        self.networks = make_networks().to(plan.device).requires_grad_(False)
        path = plan.folder / f"diffusion{plan.size}.ema.pt"
        self.networks.load_state_dict(torch.load(path, map_location=plan.device, weights_only=True))
        self.unet = self.networks.unet
        self.unet.add_adapter(LoraConfig(r=plan.rank, lora_alpha=plan.rank, target_modules=_LAYERS))
        self.weights = [p for p in self.unet.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.weights, lr=plan.rate, betas=(0.9, 0.99))
        self.kept = alphas_cumprod().to(plan.device)
        nothing = encode(make_tokenizer(), [""]).to(plan.device)
        self.nothing = self.networks.text_encoder(nothing).last_hidden_state.detach()
        self.first_step = self._resume()

    def low_rank_weights(self) -> dict[str, Tensor]:
        """The weights that are trained, by their names in the UNet."""
        return {n: p for n, p in self.unet.state_dict().items() if ".lora_" in n}

    def _resume(self) -> int:
        state = self.folder.load()
        if state is None:
            return 0
        self.unet.load_state_dict(state["model"], strict=False)
        self.optimiser.load_state_dict(state["optim"])
        return int(state["step"])

    def save(self, step: int) -> None:
        """Everything that is needed to go on at `step`, and the weights by themselves."""
        weights = self.low_rank_weights()
        state = {"step": step, "model": weights, "optim": self.optimiser.state_dict()}
        self.folder.save(state)
        torch.save(weights, self.folder.path / f"{self.folder.stage}.pt")

    def update(self, step: int, steps: int, batch: Batch) -> Tensor:
        """One step of so many; returns the loss."""
        plan = self.plan
        random = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
        place = torch.randint(1, STEPS // _SKIP + 1, (plan.batch,), generator=random)
        low, high = plan.guidance
        scale = (low + (high - low) * torch.rand(plan.batch, generator=random)).to(plan.device)
        begin = self._level((place * _SKIP - 1).to(plan.device))
        end = self._level(((place - 1) * _SKIP - 1).clamp(min=0).to(plan.device))
        noisy = batch.latents * begin.kept.sqrt() + batch.noise * (1.0 - begin.kept).sqrt()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, plan.rate, plan.warm_up, plan.fade_share)
        with torch.autocast(plan.device, torch.bfloat16, enabled=plan.bf16):
            with torch.no_grad():
                context = self.networks.text_encoder(batch.tokens).last_hidden_state
                less_noisy = self._teach(noisy, begin, end, context, scale[:, None, None, None])
                noise = self.unet(less_noisy, end.times, context).sample.float()
                target = end.consistent(less_noisy, noise)
            made = self.unet(noisy, begin.times, context).sample.float()
        off = begin.consistent(noisy, made) - target
        loss = ((off.square() + _HUBER**2).sqrt() - _HUBER).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimiser.step()
        return loss.detach()

    def _level(self, times: Tensor) -> Level:
        return Level(times, self.kept[times][:, None, None, None])

    def _teach(
        self, noisy: Tensor, begin: Level, end: Level, context: Tensor, scale: Tensor
    ) -> Tensor:
        """A guided DDIM step without the low-rank weights."""
        self.unet.disable_adapters()
        both = torch.cat([context, self.nothing.expand_as(context)])
        made = self.unet(torch.cat([noisy] * 2), torch.cat([begin.times] * 2), both).sample
        self.unet.enable_adapters()
        asked, unasked = made.float().chunk(2)
        noise = unasked + scale * (asked - unasked)
        return begin.clean(noisy, noise) * end.kept.sqrt() + noise * (1.0 - end.kept).sqrt()


def train_lcm(plan: LCMPlan) -> LCMRun:
    """Train, or continue to train, until the plan's last step."""
    data: LatentSet = load_latent_set(
        plan.folder, plan.size, plan.pictures, plan.device, bf16=plan.bf16, workers=plan.workers
    )
    run = LCMRun(plan)
    saved, losses, step = time.monotonic(), [], run.first_step
    pace = Pace(plan.steps, plan.seconds, step)
    bar = tqdm(initial=step, total=plan.steps)
    while step < pace.look(step):
        losses.append(run.update(step, pace.steps, data.batch(plan.seed, step, plan.batch, 0.05)))
        bar.update()
        step += 1
        if step % 50 == 0:
            mean = float(torch.stack(losses).mean())
            bar.set_postfix(loss=f"{mean:.5f}")
            run.folder.log(step, loss=mean, steps=pace.steps)
            losses.clear()
        if time.monotonic() - saved > plan.save_every_s or step == pace.steps:
            run.save(step)
            saved = time.monotonic()
    return run
