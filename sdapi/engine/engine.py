"""Runs jobs on one device. Knows nothing of HTTP, users or queues."""

import gc
import traceback
from dataclasses import dataclass

import torch

from sdapi.engine.extras_job import ExtrasJob
from sdapi.engine.extras_run import ExtrasRun
from sdapi.engine.job import Job, ModelFile, Result
from sdapi.engine.job_run import JobRun
from sdapi.engine.models import Models
from sdapi.engine.monitor import Monitor
from sdapi.engine.work import Work
from sdapi.errors import OutOfMemory


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

        Raises `ModelUnusable`, `OutOfMemory`, `NanProduced`; the engine can take the next job after
        any of them.
        """
        try:
            with torch.inference_mode():
                if isinstance(job, ExtrasJob):
                    return ExtrasRun(self.models, job, monitor).run()
                return JobRun(self.models, job, monitor, checks_nan=self.checks_nan).run()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            self._release(error)
            raise OutOfMemory(
                f"out of memory on {self.models.device} for {_wanted(job)}; {_ADVICE[type(job)]}"
            ) from error

    def _release(self, error: BaseException) -> None:
        """Give memory back, what the frames of a failed job still hold included."""
        traceback.clear_frames(error.__traceback__)
        self.clear()
        gc.collect()
        if self.models.device.type == "cuda":
            torch.cuda.empty_cache()


#: What allocators say that have no class for it: torch's on a CPU, and CUDA's libraries.
_MEMORY_TEXTS = ("not enough memory", "allocate memory", "out of memory", "_ALLOC_FAILED")


def _is_out_of_memory(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(text in str(error) for text in _MEMORY_TEXTS)


_ADVICE: dict[type[Work], str] = {
    Job: "try a smaller size or batch",
    ExtrasJob: "try smaller tiles (options ESRGAN_tile and its kin) or a smaller factor",
}


def _wanted(job: Work) -> str:
    if isinstance(job, Job):
        return f"{job.batch_size} x {job.width}x{job.height}"
    return ", ".join(f"{image.width}x{image.height}" for image in job.images[:3])
