"""The text encoder's own stage: its states learn to say plainly what a caption names.

From random weights the UNet's error teaches words very slowly. Here small linear heads read each
attribute from the means of the final states over the end tokens, which see the whole caption, and
over all tokens. A cross-attention that has not learned where to look yet reads just such means, so
the UNet finds the attributes as if it were given their classes. The heads are thrown away.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextModel

from tools.demo_model.networks.models import TEXT_WIDTH, make_text_encoder
from tools.demo_model.networks.tokens import encode, make_tokenizer
from tools.demo_model.pictures.attributes import VALUES, named_attributes
from tools.demo_model.pictures.captions import caption_nothing
from tools.demo_model.pictures.dataset import TRAIN, caption, draw_sample
from tools.demo_model.training.pace import Pace
from tools.demo_model.training.run_folder import RunFolder, learning_rate

_HEAD_DECAY = 0.1  # small heads need states that differ much


@dataclass(frozen=True, slots=True)
class TextPlan:
    """How the text encoder is prepared."""

    folder: Path
    device: str
    steps: int = 1500
    seconds: float | None = None  # set the number of steps by the time they may take
    until: int | None = None  # stop early here, with the schedule of the whole run
    batch: int = 64
    rate: float = 1e-3
    drop: float = 0.1  # share of captions replaced by nothing
    seed: int = 1
    save_every_s: float = 300.0


class Reader(nn.Module):
    """The text encoder with two linear heads for each attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder: CLIPTextModel = make_text_encoder()
        sizes = [len(values) for values in VALUES.values()]
        self.heads = nn.ModuleList([nn.Linear(TEXT_WIDTH, sum(sizes)) for _ in range(2)])
        self.sizes = sizes

    def forward(self, tokens: Tensor) -> list[list[Tensor]]:
        """Scores [N, values] for each attribute, from the end tokens and from all tokens."""
        states = self.text_encoder(tokens).last_hidden_state  # [N, 77, width]
        is_end = (tokens == tokens[:, -1:]).unsqueeze(-1).to(states.dtype)
        means = ((states * is_end).sum(dim=1) / is_end.sum(dim=1), states.mean(dim=1))
        return [
            list(head(m).split(self.sizes, dim=1))
            for head, m in zip(self.heads, means, strict=True)
        ]


def draw_lesson(plan: TextPlan, step: int) -> tuple[list[str], Tensor]:
    """The captions of one step, and the number of the named value per attribute [N, attributes]."""
    rng = np.random.default_rng([plan.seed, 40, step])
    samples = [draw_sample(TRAIN, int(n)) for n in rng.integers(2**31, size=plan.batch)]
    texts = [caption_nothing(rng) if rng.random() < plan.drop else caption(s, rng) for s in samples]
    named = [named_attributes(text) for text in texts]
    return texts, torch.tensor([[VALUES[a].index(n[a]) for a in VALUES] for n in named])


def train_text(plan: TextPlan) -> CLIPTextModel:
    """Train, or continue to train, and leave `text.pt` in the run's folder."""
    torch.manual_seed(plan.seed)
    run = RunFolder(plan.folder, "text")
    tokenizer = make_tokenizer()
    reader = Reader().to(plan.device)
    optimiser = torch.optim.AdamW(
        [
            {"params": reader.text_encoder.parameters(), "weight_decay": 0.0},
            {"params": reader.heads.parameters(), "weight_decay": _HEAD_DECAY},
        ],
        lr=plan.rate,
        betas=(0.9, 0.99),
        fused=True,
    )
    first = _resume(run, reader, optimiser)
    saved, pace = time.monotonic(), Pace(plan.steps, plan.seconds, first)
    bar, step = tqdm(initial=first, total=plan.steps), first
    while step < (last := plan.until or pace.look(step)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, pace.steps, plan.rate, warm_up=100, fade_share=0.5)
        texts, wanted = draw_lesson(plan, step)
        both = reader(encode(tokenizer, texts).to(plan.device))
        wanted = wanted.to(plan.device)
        loss = _loss(both, wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()
        bar.update()
        step += 1
        if step % 50 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.4f}")
            run.log(step, loss=float(loss.detach()), right=_share_right(both[0], wanted))
        if time.monotonic() - saved > plan.save_every_s or step == last:
            state = {"model": reader.state_dict(), "optim": optimiser.state_dict()}
            run.save({"step": step, **state})
            saved = time.monotonic()
    torch.save(reader.text_encoder.state_dict(), plan.folder / "text.pt")
    return reader.text_encoder


def _loss(both: list[list[Tensor]], wanted: Tensor) -> Tensor:
    """Mean cross entropy over both heads and all attributes."""
    pairs = [(s, w) for scores in both for s, w in zip(scores, wanted.T, strict=True)]
    return torch.stack([F.cross_entropy(s, w) for s, w in pairs]).mean()


@torch.no_grad()
def _share_right(scores: list[Tensor], wanted: Tensor) -> float:
    """Share of captions of which every attribute is read correctly."""
    guessed = torch.stack([s.argmax(dim=1) for s in scores], dim=1)
    return float((guessed == wanted).all(dim=1).float().mean())


def _resume(run: RunFolder, reader: Reader, optimiser: torch.optim.Optimizer) -> int:
    """Load the run's state; the number of the first step to do."""
    state = run.load()
    if state is None:
        return 0
    reader.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optim"])
    return int(state["step"])
