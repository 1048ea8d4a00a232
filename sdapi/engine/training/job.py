"""A training: everything the engine needs for it, resolved and immutable; and how far it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from sdapi.engine.weights.model_file import ModelFile


@dataclass(frozen=True, slots=True)
class TrainingPicture:
    """A picture to learn, and the text that is to mean it."""

    path: Path
    caption: str


@dataclass(frozen=True, slots=True)
class LoraShape:
    """How large a LoRA is: at most `rank` for every layer, at most half of the layer's width.

    A layer's change is scaled by `alpha / rank`, which a smaller rank leaves as it is.
    """

    rank: int = 128
    alpha: float = 64.0
    #: of the text encoder, or both of SDXL's
    has_text: bool = True
    #: layers of the UNet's residual and resampling blocks too, beyond the contract's transformers
    has_convolutions: bool = False


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """LoRA training of a checkpoint's UNet and text encoders (contract: portrait-pipeline 2.3).

    `folder` takes `checkpoint-<step>.safetensors` every `checkpoint_every` updates and at the end,
    and what a later run of an equal job needs to go on after a crash.
    """

    id: str
    checkpoint: ModelFile
    pictures: tuple[TrainingPicture, ...]
    folder: Path
    #: pixels of a side: pictures are scaled to it by their shorter side, then cut to a square
    resolution: int
    #: updates of the weights
    steps: int
    checkpoint_every: int
    shape: LoraShape = field(default_factory=LoraShape)
    learning_rate: float = 1e-4
    text_learning_rate: float = 5e-5
    #: pictures behind each update; None: 4 on a GPU, 1 on a CPU
    accumulation: int | None = None
    seed: int = 0
    #: mirror every second picture
    flips: bool = True
    #: compute activations twice, for less memory
    checkpoints_gradients: bool = False
    #: texts for the header of the result, beside those about the training
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class TrainingMonitor:
    """How far a training is. The worker writes, others read or set the event."""

    steps: int = 0
    step: int = 0
    #: mean over the latest updates
    loss: float = 0.0
    #: seconds of an update, mean over the latest
    update_s: float = 0.0
    #: the step at which this run went on with an earlier one's work
    resumed_at: int = 0
    #: stop before the next update, keeping what can be resumed
    cancelled: Event = field(default_factory=Event)
    #: told the step and file of each checkpoint, in the worker's thread; must be quick
    on_checkpoint: Callable[[int, Path], None] | None = None


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training made."""

    #: step and file of every checkpoint, the last one at the end
    checkpoints: tuple[tuple[int, Path], ...]
    #: mean over the latest updates
    loss: float


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the LoRA of a step is written."""
    return folder / f"checkpoint-{step}.safetensors"
