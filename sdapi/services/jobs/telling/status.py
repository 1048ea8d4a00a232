"""What is told of a task: its state, how far it is, when it will be done."""

import time
from dataclasses import dataclass

from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import Task
from sdapi.services.jobs.telling.progress import progress_of


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """A task at one moment."""

    id_task: str
    kind: str
    state: str
    #: 0 to 1
    progress: float
    #: seconds left, None while nothing can be said
    eta_s: float | None
    #: tasks before it, None when it does not wait
    queue_position: int | None
    job_no: int
    job_count: int
    sampling_step: int
    sampling_steps: int
    uid: str | None
    error: str | None

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


def status_of(task: Task, scheduler: Scheduler) -> TaskStatus:
    """How a task is doing now."""
    monitor, fraction = task.monitor, min(progress_of(task), 1.0)
    done = fraction if task.is_open else float(task.state == "done")
    return TaskStatus(
        id_task=task.id,
        kind=task.kind,
        state=str(task.state),
        progress=done,
        eta_s=seconds_left(task),
        queue_position=scheduler.position(task) if task.is_open else None,
        job_no=monitor.job_no,
        job_count=monitor.job_count,
        sampling_step=monitor.sampling_step,
        sampling_steps=monitor.sampling_steps,
        uid=task.uid,
        error=task.error,
    )


def seconds_left(task: Task) -> float | None:
    """What the time so far says about the rest; None before the first step."""
    fraction = progress_of(task)
    if task.started is None or not task.is_open or fraction <= 0:
        return None
    elapsed = time.time() - task.started
    return max(elapsed / fraction - elapsed, 0.0)
