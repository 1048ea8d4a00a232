"""How a model is trained: the table of portrait-pipeline 2.3, made to suit the checkpoint."""

from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from sdapi.portrait.base.checkpoints import BaseModel
from sdapi.portrait.wire.requests import TrainRequest
from sdapi.services.training import LoraShape

#: each writes a LoRA and what is resumed from, and asks for four pictures
MOST_EVALUATIONS: Final = 40
#: of contract 2.3, for the widths of Stable Diffusion; a narrow network's weights move further
_LEARNING_RATE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training takes from its kind, its role and its checkpoint."""

    shape: LoraShape
    #: pixels of a side
    resolution: int
    checkpoints_gradients: bool
    #: trial pictures are drawn, and the best steps merged; else the last weights are taken
    has_trials: bool
    #: updates between checkpoints
    evaluated_every: int
    #: of the UNet; texts learn at half of it
    learning_rate: float
    #: the face's box is grown by this to the crop that is trained on
    crop: float = 3.0


def plan_for(request: TrainRequest, base: BaseModel) -> Plan:
    """Rank, size and the like of a training."""
    is_xl = base.kind == "xl"
    shape = LoraShape(32, 16.0, has_text=not request.is_scene) if is_xl else LoraShape(128, 64.0)
    return Plan(
        replace(shape, has_convolutions=base.trains_convolutions),
        base.native_side,
        checkpoints_gradients=is_xl,
        has_trials=not is_xl,
        evaluated_every=_evaluated_every(request),
        learning_rate=base.learning_rate or _LEARNING_RATE,
    )


def _evaluated_every(request: TrainRequest) -> int:
    """As asked for, unless that were so often that it would fill the disk."""
    steps = request.max_train_steps
    least = ceil(steps / MOST_EVALUATIONS)
    return min(max(request.steps_between_evaluations, least), steps)


def caption_of(trigger: str, sex: str, male: str, female: str) -> str:
    """The text that is to mean the person; any other `sex` than these two says nothing."""
    word = {"male": male, "female": female}.get(sex.strip().lower(), "")
    return ", ".join(part for part in (trigger, word) if part)
