"""Runs jobs on one device. Knows nothing of HTTP, users or queues."""

from dataclasses import dataclass

import torch

from sdapi.engine.drawing.job_run import JobRun
from sdapi.engine.extras_run import ExtrasRun
from sdapi.engine.jobs.extras_job import ExtrasJob
from sdapi.engine.jobs.job import Job, ModelFile, Result
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.work import Work
from sdapi.engine.models.device_models import Models
from sdapi.engine.torch_errors import telling_shortage, telling_too_small
from sdapi.engine.training.job import TrainingJob, TrainingMonitor
from sdapi.engine.training.training_run import TrainingRun


@dataclass(slots=True)
class Engine:
    """One device and the models on it. `run` belongs to one thread."""

    models: Models
    #: fail a job whose result holds NaNs; without it they become black
    checks_nan: bool = True

    def load(self, checkpoint: ModelFile) -> None:
        """Bring a checkpoint into memory ahead of the first job; raises `ModelUnusable`."""
        with self.models.checkpoint(checkpoint):
            pass

    def has_loaded(self, checkpoint: ModelFile) -> bool:
        """Whether a job with this checkpoint would start without reading its file."""
        return checkpoint in self.models.cache

    @property
    def cache_figures(self) -> dict[str, float]:
        """Hits, misses and bytes of the models in memory."""
        cache = self.models.cache
        return {"hits": cache.hits, "misses": cache.misses, "bytes": cache.size_bytes}

    def clear(self) -> None:
        """Drop every cached model."""
        self.models.cache.clear()

    def run(self, job: Work, monitor: Monitor) -> Result:
        """Draw a job's pictures, or work on those it brings.

        Raises `BadRequest`, `ModelUnusable`, `OutOfMemory`, `NanProduced`; the engine can take the
        next job after any of them.
        """
        shortage = telling_shortage(
            self.models.device, _wanted(job), _ADVICE[type(job)], self.clear
        )
        with shortage, telling_too_small(_wanted(job)), torch.inference_mode():
            if isinstance(job, ExtrasJob):
                return ExtrasRun(self.models, job, monitor).run()
            return JobRun(self.models, job, monitor, checks_nan=self.checks_nan).run()

    def begin_training(self, job: TrainingJob, monitor: TrainingMonitor) -> TrainingRun:
        """A training that has loaded what it needs; its updates follow, one at a time.

        Raises `ModelUnusable`, `OutOfMemory`.
        """
        run = TrainingRun(self.models, job, monitor)
        try:
            run.begin()
        except BaseException:
            run.close()
            raise
        return run


_ADVICE: dict[type[Work], str] = {
    Job: "try a smaller size or batch",
    ExtrasJob: "try smaller tiles (options ESRGAN_tile and its kin) or a smaller factor",
}


def _wanted(job: Work) -> str:
    if isinstance(job, Job):
        return f"{job.batch_size} x {job.width}x{job.height}"
    return ", ".join(f"{image.width}x{image.height}" for image in job.images[:3])
