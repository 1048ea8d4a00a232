"""How a model is trained: the table of portrait-pipeline 2.3, scaled to the checkpoint's size."""

from dataclasses import dataclass

from sdapi.portrait.base.checkpoints import BaseModel
from sdapi.portrait.wire.requests import TrainRequest
from sdapi.services.training import LoraShape


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training takes from its kind and role."""

    shape: LoraShape
    #: pixels of a side
    resolution: int
    checkpoints_gradients: bool
    #: trial pictures are drawn, and the best steps merged; else the last weights are taken
    has_trials: bool
    #: the face's box is grown by this to the crop that is trained on
    crop: float = 3.0


def plan_for(request: TrainRequest, base: BaseModel) -> Plan:
    """Rank, size and the like of a training."""
    if base.kind == "xl":
        shape = LoraShape(32, 16.0, has_text=not request.is_scene)
        return Plan(shape, base.native_side, checkpoints_gradients=True, has_trials=False)
    return Plan(
        LoraShape(128, 64.0), base.native_side, checkpoints_gradients=False, has_trials=True
    )


def caption_of(trigger: str, sex: str, male: str, female: str) -> str:
    """The text that is to mean the person; any other `sex` than these two says nothing."""
    word = {"male": male, "female": female}.get(sex.strip().lower(), "")
    return ", ".join(part for part in (trigger, word) if part)
