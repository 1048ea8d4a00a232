"""Stand-ins for what is slow or far away."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from sdapi.engine.jobs.extras_job import ExtrasJob
from sdapi.engine.jobs.job import GeneratedImage, Job, ModelFile, Result
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.work import Work
from sdapi.engine.training.job import (
    TrainingJob,
    TrainingMonitor,
    TrainingResult,
    checkpoint_path,
)
from sdapi.engine.upscaling.upscaler import ModelUpscaler
from sdapi.errors import SDAPIError
from sdapi.images import Upscale
from sdapi.services.jobs.worker import JobRunner
from sdapi.settings import Settings


def colour_of(seed: int) -> tuple[int, int, int]:
    """The colour that a fake engine paints for a seed."""
    return seed & 255, seed >> 8 & 255, seed >> 16 & 255


@dataclass
class FakeTraining:
    """Learns nothing, at a speed that tests choose."""

    job: TrainingJob
    monitor: TrainingMonitor
    update_s: float = 0.0
    #: what to raise at a step, None for none
    failure: Callable[[int], BaseException | None] = lambda step: None
    is_at_hand: bool = True
    #: for each update, whether it was made between two steps of a job
    updates: list[bool] = field(default_factory=list[bool])
    was_suspended: bool = False
    is_closed: bool = False

    def update(self, *, while_drawing: bool = False) -> None:
        time.sleep(self.update_s)
        self.updates.append(while_drawing)
        self.monitor.update_s = self.update_s
        if (error := self.failure(self.monitor.step + 1)) is not None:
            raise error
        self.monitor.step += 1

    @property
    def is_finished(self) -> bool:
        return self.monitor.step >= self.job.steps

    def suspend(self) -> None:
        self.was_suspended = True

    def result(self) -> TrainingResult:
        last = self.job.steps
        return TrainingResult(((last, checkpoint_path(self.job.folder, last)),), 0.0)

    def close(self) -> None:
        self.is_closed = True


@dataclass
class FakeEngine:
    """Paints each picture in one colour, told by its seed; no torch."""

    #: seconds that each batch takes, in steps of a hundredth
    delay_s: float = 0.0
    #: what to raise for a job, None for none
    failure: Callable[[Job], BaseException | None] = lambda job: None
    load_failure: SDAPIError | None = None
    jobs: list[Job] = field(default_factory=list[Job])
    loaded: list[ModelFile] = field(default_factory=list[ModelFile])
    clears: int = 0
    #: seconds of a training's update, and what to raise at its steps
    update_s: float = 0.0
    training_failure: Callable[[int], BaseException | None] = lambda step: None
    trainings: list[FakeTraining] = field(default_factory=list[FakeTraining])
    #: set while a job runs
    is_running: threading.Event = field(default_factory=threading.Event)

    def run(self, job: Work, monitor: Monitor) -> Result:
        if isinstance(job, ExtrasJob):
            return _enlarged(job)
        self.jobs.append(job)
        self.is_running.set()
        try:
            if (error := self.failure(job)) is not None:
                raise error
            self.load(job.checkpoint)
            return self._paint(job, monitor)
        finally:
            self.is_running.clear()

    def _paint(self, job: Job, monitor: Monitor) -> Result:
        monitor.job_count = job.n_iter
        images: list[GeneratedImage] = []
        for batch in range(job.n_iter):
            if monitor.interrupted.is_set():
                break
            monitor.begin_sampling(job.steps)
            self._wait(monitor)
            first = batch * job.batch_size
            for index in range(first, min(first + job.batch_size, len(job.seeds))):
                size = (job.width // 8 * 8, job.height // 8 * 8)
                images.append(
                    GeneratedImage(index, Image.new("RGB", size, colour_of(job.seeds[index])))
                )
            monitor.end_pass()
        return Result(
            tuple(images),
            {},
            interrupted=monitor.interrupted.is_set(),
            detected_maps=tuple(each for stages in job.stages for each in stages.detected_maps),
        )

    def _wait(self, monitor: Monitor) -> None:
        end = time.monotonic() + self.delay_s
        while time.monotonic() < end and not monitor.should_stop:
            time.sleep(0.01)
            if monitor.between_steps is not None:
                monitor.between_steps()

    def begin_training(self, job: TrainingJob, monitor: TrainingMonitor) -> FakeTraining:
        training = FakeTraining(job, monitor, self.update_s, self.training_failure)
        self.trainings.append(training)
        return training

    def load(self, checkpoint: ModelFile) -> None:
        if self.load_failure is not None:
            raise self.load_failure
        if checkpoint not in self.loaded:
            self.loaded.append(checkpoint)

    def has_loaded(self, checkpoint: ModelFile) -> bool:
        return checkpoint in self.loaded

    @property
    def cache_figures(self) -> dict[str, float]:
        return {"hits": 0, "misses": len(self.loaded), "bytes": 0}

    def clear(self) -> None:
        self.clears += 1
        self.loaded.clear()


def _enlarged(job: ExtrasJob) -> Result:
    """The pictures of a job on given ones at their new size."""
    enlarged: list[GeneratedImage] = []
    for index, image in enumerate(job.images):
        factor = 1.0 if job.enlargement is None else job.enlargement.factor_for(image.size)
        size = (int(image.width * factor), int(image.height * factor))
        enlarged.append(GeneratedImage(index, image.resize(size)))
    return Result(tuple(enlarged), {})


@dataclass
class FakeEngines:
    """Gives every device the same fake engine."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    names: list[str] = field(default_factory=lambda: ["fake"])

    def device_names(self, settings: Settings) -> list[str]:
        return self.names

    def make(self, settings: Settings, name: str) -> JobRunner:
        return self.engine


def no_models(upscaler: ModelUpscaler) -> Upscale:
    """For requests whose pictures no model enlarges."""
    raise AssertionError(f"{upscaler.name} is not wanted here")
