"""Trainings that wait or run, under their ids."""

import itertools
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from sdapi.engine.training.job import TrainingJob, TrainingMonitor, TrainingResult
from sdapi.errors import Conflict, QueueFull, SDAPIError, TaskCancelled
from sdapi.services.jobs.tasks import State


@dataclass(slots=True, eq=False)
class Training:
    """One training. Its state changes under the line's lock; anybody may read it."""

    job: TrainingJob
    monitor: TrainingMonitor = field(default_factory=TrainingMonitor)
    state: State = State.QUEUED
    future: "Future[TrainingResult]" = field(default_factory=Future)

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def is_open(self) -> bool:
        return self.state in (State.QUEUED, State.RUNNING)


class TrainingLine:
    """First come, first served; each worker runs one training at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: guards everything below, and the states of trainings
        self._lock = threading.Lock()
        self._waiting: deque[Training] = deque()
        self._running: list[Training] = []
        self._refusal: SDAPIError | None = None
        self._numbers = itertools.count(1)

    def put(self, training: Training) -> None:
        """Add one at the end; raises `Conflict`, `QueueFull`, or what the line was closed with."""
        with self._lock:
            if self._refusal is not None:
                raise type(self._refusal)(self._refusal.detail)
            if any(each.id == training.id for each in (*self._waiting, *self._running)):
                raise Conflict(f"training '{training.id}' waits or runs already")
            if len(self._waiting) >= self._limit:
                raise QueueFull(
                    f"{len(self._waiting)} trainings are waiting already, which is the limit"
                )
            self._waiting.append(training)

    def take(self) -> Training | None:
        """The next one, now running."""
        with self._lock:
            if not self._waiting:
                return None
            training = self._waiting.popleft()
            training.state = State.RUNNING
            self._running.append(training)
            return training

    def finish(self, training: Training, outcome: TrainingResult | BaseException) -> None:
        """End a running one and wake whoever waits for it."""
        with self._lock:
            self._running.remove(training)
            is_stopped = isinstance(outcome, TaskCancelled)
            is_failed = isinstance(outcome, BaseException)
            training.state = State.FAILED if is_failed else State.DONE
            if is_stopped:
                training.state = State.CANCELLED
        _tell(training, outcome)

    def cancel(self, training: Training) -> None:
        """A waiting one ends at once, a running one before its next update."""
        with self._lock:
            training.monitor.cancelled.set()
            if training not in self._waiting:
                return
            self._waiting.remove(training)
            training.state = State.CANCELLED
        _tell(training, TaskCancelled(f"training '{training.id}' was cancelled"))

    def close(self, error: SDAPIError) -> None:
        """Refuse what comes from now on with `error`, and what waits."""
        with self._lock:
            self._refusal = error
            left = list(self._waiting)
            self._waiting.clear()
            for training in left:
                training.state = State.FAILED
        for training in left:
            _tell(training, type(error)(error.detail))

    @property
    def is_closed(self) -> bool:
        return self._refusal is not None

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def open(self) -> list[Training]:
        """Those that run, then those that wait, in order."""
        with self._lock:
            return [*self._running, *self._waiting]


def _tell(training: Training, outcome: TrainingResult | BaseException) -> None:
    """Wake whoever waits for the outcome, if anybody still does."""
    if not training.future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, BaseException):
        training.future.set_exception(outcome)
    else:
        training.future.set_result(outcome)
