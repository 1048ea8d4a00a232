"""What a running job reports, and how it is told to stop; read by other threads while it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class PreviewMethod(StrEnum):
    """What decodes a prediction; both take the device's time."""

    FULL = "Full"
    TAESD = "TAESD"


@dataclass(frozen=True, slots=True)
class Preview:
    """A decoded prediction, and the step it is of."""

    step: int
    images: "Sequence[Image]"


@dataclass(slots=True)
class Monitor:
    """Progress of one job. The worker writes the numbers, others read them or set the events."""

    #: passes of the whole job (batches, doubled by hires fix), and how many are done
    job_count: int = 0
    job_no: int = 0
    sampling_steps: int = 0
    #: the step that ended last, from 0, as the webui counts; 0 before that and between passes
    sampling_step: int = 0
    #: the latest predicted picture, latent [B, C, H/8, W/8]
    latent: "Tensor | None" = None
    #: how the next step is to decode its prediction, for whoever watches; None: not at all
    wanted_preview: "PreviewMethod | None" = None
    #: the latest that was decoded, a picture for each of the batch
    preview: "Preview | None" = None
    #: what is worked on, where that has a name
    text: str | None = None
    #: a script has said how many passes there are, over all its generations
    is_planned: bool = False
    #: called after every step with its number
    on_step: Callable[[int], None] | None = None
    #: called when a step is over and its job can wait: the device may do something else now
    between_steps: Callable[[], None] | None = None
    #: stop the whole job at the next denoiser call, keeping what there is
    interrupted: Event = field(default_factory=Event)
    #: stop the current batch only
    skipped: Event = field(default_factory=Event)

    def begin_job(self, passes: int) -> None:
        """A job starts; it may be one of several of the same task."""
        if not self.is_planned:
            self.job_count = passes

    def plan(self, passes: int) -> None:
        """The passes of all generations to come."""
        self.is_planned, self.job_count = True, passes

    def step_done(self, index: int) -> None:
        """Step `index` of the running sampler is done."""
        self.sampling_step = index
        if self.on_step is not None:
            self.on_step(index)
        if self.between_steps is not None:
            self.between_steps()

    def begin_sampling(self, steps: int) -> None:
        """A sampler starts; a skip meant for the batch before is forgotten."""
        self.sampling_steps = steps
        self.sampling_step = 0

    def end_pass(self) -> None:
        """One of `job_count` passes is done."""
        self.job_no += 1
        self.sampling_step = 0
        self.latent = self.preview = None

    @property
    def should_stop(self) -> bool:
        return self.interrupted.is_set() or self.skipped.is_set()
