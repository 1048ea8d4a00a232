"""Counts what becomes of jobs."""

from dataclasses import dataclass

from sdapi.engine.jobs.job import Result
from sdapi.errors import SDAPIError
from sdapi.metrics import Metrics
from sdapi.services.jobs.tasks import Task


@dataclass(frozen=True, slots=True)
class JobMetrics:
    """Told by the task registry of every job's start and end."""

    metrics: Metrics

    def began(self, task: Task) -> None:
        if task.started is not None:
            self.metrics.queue_wait_seconds.observe(max(task.started - task.created, 0.0))

    def ended(self, task: Task, outcome: Result | BaseException | None) -> None:
        self.metrics.jobs.labels(str(task.state)).inc()
        if isinstance(outcome, Result):
            phases = {
                "load": outcome.load_s,
                "sample": outcome.sample_s,
                "decode": outcome.decode_s,
            }
            for phase, seconds in phases.items():
                self.metrics.phase_seconds.labels(phase).observe(seconds)
        elif outcome is not None:
            is_ours = isinstance(outcome, SDAPIError)
            self.metrics.failures.labels(outcome.code if is_ours else type(outcome).__name__).inc()
