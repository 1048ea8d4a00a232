"""ControlNets for the demo model: edges, or a more or less blurred copy, lead the frozen UNet."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from tqdm import tqdm

from tools.demo_model.networks.models import make_networks
from tools.demo_model.networks.pipeline import controlled
from tools.demo_model.networks.schedule import STEPS, alphas_cumprod
from tools.demo_model.pictures.cache import cached_pictures
from tools.demo_model.pictures.dataset import TRAIN, Picture
from tools.demo_model.training.average import follow
from tools.demo_model.training.latent_set import Batch, load_latent_set, mirror
from tools.demo_model.training.pace import Pace
from tools.demo_model.training.run_folder import RunFolder, learning_rate

KINDS = ("canny", "tile")
_VARIANTS = 2  # edges with other thresholds for each picture
_DOWN = (1, 2, 4, 8, 16)  # how much a tile picture has been reduced


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """How a ControlNet is trained."""

    folder: Path
    device: str
    kind: str = "canny"
    size: int = 256
    #: the run's, whose latents are there; `shown` of them are used
    pictures: int = 16000
    shown: int = 6144
    steps: int = 3000
    seconds: float | None = None  # set the number of steps by the time they may take
    batch: int = 16
    rate: float = 3e-4
    warm_up: int = 100
    fade_share: float = 0.3
    drop: float = 0.5  # share of captions replaced by nothing (Zhang et al. 2023, section 3.4)
    ema: float = 0.995
    seed: int = 1
    workers: int = 2
    bf16: bool = False
    compiles: bool = False
    save_every_s: float = 300.0


def edges(picture: Picture, low: float, high: float, work_size: int) -> Picture:
    """Canny's edges [H, W], found in the picture as it is or enlarged, as preprocessors do."""
    side = picture.shape[0]
    if work_size == side:
        return cv2.Canny(picture, low, high)
    large = cv2.resize(picture, (work_size, work_size), interpolation=cv2.INTER_LANCZOS4)
    small = cv2.resize(cv2.Canny(large, low, high), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small)


def _edge_variants(pictures: Picture, number: int) -> Picture:
    rng = np.random.default_rng([60, number])
    side, found = pictures.shape[1], []
    for _ in range(_VARIANTS):
        low = rng.uniform(40.0, 140.0)
        work = side if rng.random() < 0.6 else 2 * side
        found.append(edges(pictures[number], low, low * rng.uniform(1.5, 2.5), work))
    return np.stack(found)


class Hints:
    """The control pictures [N, 3, H, W] in 0..1 of a batch, made on the training device."""

    def __init__(self, plan: ControlPlan) -> None:
        self._kind = plan.kind
        pictures = cached_pictures(plan.folder, TRAIN, plan.shown, plan.size, plan.workers)
        if plan.kind == "canny":
            with ThreadPoolExecutor(plan.workers or 8) as pool:
                parts = pool.map(partial(_edge_variants, pictures), range(plan.shown))
                pictures = np.stack(list(parts))
        self._source = torch.from_numpy(pictures).to(plan.device)

    def of(self, batch: Batch, step: int) -> Tensor:
        """The batch's control pictures, mirrored where its latents are."""
        numbers, random = batch.numbers, torch.Generator().manual_seed(step)
        if self._kind == "canny":
            variant = torch.randint(_VARIANTS, (len(numbers),), generator=random)
            lines = self._source[numbers, variant].float() / 255.0
            hints = lines[:, None].expand(-1, 3, -1, -1)
        else:
            plain = self._source[numbers].permute(0, 3, 1, 2).float() / 255.0
            down = _DOWN[int(torch.randint(len(_DOWN), (1,), generator=random))]
            small = F.interpolate(plain, scale_factor=1 / down, mode="area")
            hints = F.interpolate(small, size=plain.shape[-2:], mode="bicubic").clamp(0.0, 1.0)
        return mirror(hints, batch.mirrored)


class ControlRun:
    """A ControlNet beside the frozen networks of the diffusion stage."""

    def __init__(self, plan: ControlPlan) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.folder = RunFolder(plan.folder, f"control_{plan.kind}{plan.size}")
        self.networks = make_networks().to(plan.device).requires_grad_(False)
        path = plan.folder / f"diffusion{plan.size}.ema.pt"
        self.networks.load_state_dict(torch.load(path, map_location=plan.device, weights_only=True))
        self.control = ControlNetModel.from_unet(self.networks.unet).to(plan.device)
        self.control.train().requires_grad_(True)
        self.average = ControlNetModel.from_unet(self.networks.unet).to(plan.device)
        self.average.load_state_dict(self.control.state_dict())
        self.average.requires_grad_(False)
        if plan.bf16 and plan.device == "cpu":  # where fused attention is slow in bfloat16
            self.networks.unet.set_attn_processor(AttnProcessor())
            self.control.set_attn_processor(AttnProcessor())
        if plan.compiles:
            self.networks.unet.compile()
            self.control.compile()
        self.optimiser = torch.optim.AdamW(
            self.control.parameters(), lr=plan.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )
        self.first_step = self._resume()

    def _resume(self) -> int:
        state = self.folder.load()
        if state is None:
            return 0
        self.control.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optim"])
        return int(state["step"])

    def save(self, step: int) -> None:
        """Everything that is needed to go on at `step`, and the averaged weights by themselves."""
        state = {"model": self.control, "average": self.average, "optim": self.optimiser}
        weights = {name: part.state_dict() for name, part in state.items()}
        self.folder.save({"step": step, **weights})
        torch.save(weights["average"], self.folder.path / f"{self.folder.stage}.ema.pt")

    def update(self, step: int, steps: int, batch: Batch, hints: Tensor) -> Tensor:
        """One step of so many: the squared error of the predicted noise, features weighing more."""
        plan = self.plan
        random = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
        times = torch.randint(STEPS, (plan.batch,), generator=random).to(plan.device)
        kept = alphas_cumprod().to(plan.device)[times][:, None, None, None]
        noisy = batch.latents * kept.sqrt() + batch.noise * (1.0 - kept).sqrt()
        with torch.no_grad():
            context = self.networks.text_encoder(batch.tokens).last_hidden_state
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, plan.rate, plan.warm_up, plan.fade_share)
        with torch.autocast(plan.device, torch.bfloat16, enabled=plan.bf16):
            made = controlled(self.networks.unet, self.control, noisy, times, context, hints)
        loss = ((made.float() - batch.noise).square() * batch.focus).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.control.parameters(), 1.0)
        self.optimiser.step()
        follow(self.average, self.control, step, plan.ema)
        return loss.detach()


def train_control(plan: ControlPlan) -> ControlRun:
    """Train, or continue to train, until the plan's last step."""
    data = load_latent_set(
        plan.folder, plan.size, plan.pictures, plan.device, bf16=plan.bf16, workers=plan.workers
    ).first(plan.shown)
    run, hints = ControlRun(plan), Hints(plan)
    saved, losses, step = time.monotonic(), [], run.first_step
    pace = Pace(plan.steps, plan.seconds, step)
    bar = tqdm(initial=step, total=plan.steps)
    while step < pace.look(step):
        batch = data.batch(plan.seed, step, plan.batch, plan.drop)
        losses.append(run.update(step, pace.steps, batch, hints.of(batch, step)))
        bar.update()
        step += 1
        if step % 50 == 0:
            mean = float(torch.stack(losses).mean())
            bar.set_postfix(loss=f"{mean:.4f}")
            run.folder.log(step, loss=mean, steps=pace.steps)
            losses.clear()
        if time.monotonic() - saved > plan.save_every_s or step == pace.steps:
            run.save(step)
            saved = time.monotonic()
    return run
