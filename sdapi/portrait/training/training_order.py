"""One training with what belongs to it."""

from dataclasses import dataclass

from sdapi.portrait.base.checkpoints import BaseModel
from sdapi.portrait.training.plans import Plan, caption_of
from sdapi.portrait.training.work_folder import WorkFolder
from sdapi.portrait.wire.requests import TrainRequest


@dataclass(frozen=True, slots=True)
class TrainingOrder:
    """Whose model is trained, on what, and where."""

    owner: str
    model_id: str
    request: TrainRequest
    base: BaseModel
    plan: Plan
    work: WorkFolder

    @property
    def caption(self) -> str:
        words = self.base.words
        return caption_of(words.trigger, self.request.sex, words.male, words.female)

    @property
    def trigger(self) -> str:
        return self.request.scene_prompts[0] if self.request.is_scene else self.base.words.trigger
