"""LoRA training for whoever wants it: extensions submit jobs, the devices' workers train.

A training yields to drawing between its updates; `jobs.training_turns` has the rule.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from sdapi.engine.training.job import (
    LoraShape,
    TrainingJob,
    TrainingMonitor,
    TrainingPicture,
    TrainingResult,
    checkpoint_path,
)
from sdapi.services.jobs.training import Training, TrainingLine
from sdapi.services.jobs.training_turns import progress_text

__all__ = [
    "LoraShape",
    "Training",
    "TrainingJob",
    "TrainingMonitor",
    "TrainingPicture",
    "TrainingResult",
    "TrainingService",
    "checkpoint_path",
    "progress_text",
]


class TrainingService:
    """Takes trainings, tells how far they are, and ends them."""

    def __init__(self, line: TrainingLine) -> None:
        self._line = line

    def submit(
        self, job: TrainingJob, on_checkpoint: Callable[[int, Path], None] | None = None
    ) -> Training:
        """Queue a training; an equal one that was interrupted in the same folder goes on.

        `on_checkpoint` is told step and file of each checkpoint, in a worker's thread. Raises
        `QueueFull`, `ShuttingDown`, `NoDevice`, and `Conflict` while one of the same id is open.
        """
        training = Training(job, TrainingMonitor(steps=job.steps, on_checkpoint=on_checkpoint))
        self._line.put(training)
        return training

    async def result(self, training: Training) -> TrainingResult:
        """Wait for the end; cancelling this cancels the training.

        Raises `ModelUnusable`, `OutOfMemory`, `NanProduced`, `TaskCancelled`, `ShuttingDown`.
        """
        future = asyncio.wrap_future(training.future)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._line.cancel(training)
            future.add_done_callback(_forget)
            raise

    def cancel(self, training: Training) -> None:
        """End one before its next update; what it has learnt stays in its folder."""
        self._line.cancel(training)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is trained any more: the server stops, or has no device."""
        return self._line.is_closed

    @property
    def open(self) -> list[Training]:
        """Those that run, then those that wait."""
        return self._line.open


def _forget(future: "asyncio.Future[TrainingResult]") -> None:
    """Nobody waits for it any more; asyncio would complain of an error that nobody saw."""
    if not future.cancelled():
        future.exception()
