"""When a worker trains: all the time while nothing else is to do, else for its share.

The rule, for one worker. A job that waits is always taken before an update is begun, so it starts
within one update. While jobs are drawn, training earns `share / (1 - share)` seconds for each of
their seconds, and has its turn, one update, as soon as it has earned one: between two steps of a
job, or between two jobs. So of the time in which both want the device training gets its share, and
no job is kept from it for longer than an update at a time.
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from sdapi.engine.training.job import TrainingJob, TrainingMonitor, TrainingResult
from sdapi.errors import SDAPIError, ShuttingDown, TaskCancelled
from sdapi.logs import log_fields
from sdapi.services.jobs.training import Training, TrainingLine

log = logging.getLogger(__name__)

#: updates that training may be behind with: more than that it does not catch up
_MAX_EARNED = 4
_BAR_WIDTH = 20


class RunningTraining(Protocol):
    """What turns need of an engine's run; all calls come from the worker's thread."""

    def update(self, *, while_drawing: bool = False) -> None:
        """Change the weights once; while a job draws, what it has merged is lifted meanwhile."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether there is no update left."""
        ...

    @property
    def is_at_hand(self) -> bool:
        """Whether an update would load and move nothing."""
        ...

    def suspend(self) -> None:
        """Write what it takes to go on later."""
        ...

    def result(self) -> TrainingResult:
        """What was trained; of a finished run."""
        ...

    def close(self) -> None:
        """Give the memory back; the checkpoint stays in the cache."""
        ...


class TrainingEngine(Protocol):
    """What turns need of an engine."""

    def begin_training(self, job: TrainingJob, monitor: TrainingMonitor) -> RunningTraining:
        """Begin a training, or go on with one that its folder holds."""
        ...


class TrainingTurns:
    """The training of one worker, and the time it has earned. Belongs to the worker's thread."""

    def __init__(
        self, line: TrainingLine, share: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._line = line
        self._rate = share / (1.0 - share)
        self._now = now
        self._training: Training | None = None
        self._run: RunningTraining | None = None
        #: seconds that training may take while jobs want the device
        self._earned_s = 0.0
        self._told_at = 0.0

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to train."""
        return self._training is not None or self._line.has_waiting

    def earn(self, drawn_s: float) -> None:
        """A job had the device for so long."""
        if self._training is not None:
            most = _MAX_EARNED * self._training.monitor.update_s
            self._earned_s = min(self._earned_s + drawn_s * self._rate, most)

    def is_due(self, *, others_wait: bool) -> bool:
        """Whether it is training's turn, between two jobs."""
        return self.is_wanted and (not others_wait or self._training is None or self._has_earned)

    @property
    def _has_earned(self) -> bool:
        monitor = None if self._training is None else self._training.monitor
        if monitor is None:
            return False
        return monitor.cancelled.is_set() or self._earned_s >= monitor.update_s

    def take(self, engine: TrainingEngine) -> None:
        """A turn: begin the next training, or one update of the running one."""
        started = self._now()
        if self._training is None:
            self._begin(engine)
        elif self._run is not None:
            self._update(self._training, self._run, while_drawing=False)
        self._earned_s = max(self._earned_s - (self._now() - started), 0.0)

    def take_between_steps(self) -> None:
        """A turn while a job waits between two steps, if one was earned."""
        run = self._run
        if self._training is None or run is None or not self._has_earned or not run.is_at_hand:
            return
        started = self._now()
        self._update(self._training, run, while_drawing=True)
        self._earned_s = max(self._earned_s - (self._now() - started), 0.0)

    def stop(self) -> None:
        """The worker ends: leave what can be resumed."""
        if self._training is not None and self._run is not None:
            self._suspend(self._training, self._run, ShuttingDown("the server is shutting down"))

    def _begin(self, engine: TrainingEngine) -> None:
        if (training := self._line.take()) is None:
            return
        self._training, self._earned_s = training, 0.0
        try:
            with log_fields(training_id=training.id):
                self._run = engine.begin_training(training.job, training.monitor)
                log.info("training %s begins", training.id)
        except Exception as error:
            self._end(training, error)

    def _update(self, training: Training, run: RunningTraining, *, while_drawing: bool) -> None:
        if training.monitor.cancelled.is_set():
            self._suspend(training, run, TaskCancelled(f"training '{training.id}' was cancelled"))
            return
        try:
            with log_fields(training_id=training.id):
                if not run.is_finished:
                    run.update(while_drawing=while_drawing)
                    self._tell(training.monitor, is_last=run.is_finished)
                if run.is_finished:
                    self._end(training, run.result())
        except Exception as error:
            self._end(training, error)

    def _suspend(self, training: Training, run: RunningTraining, reason: SDAPIError) -> None:
        try:
            run.suspend()
        # No folder, a full disk, a device that is gone: never the worker.
        except Exception as error:
            log.warning("training %s leaves nothing to resume: %s", training.id, error)
        self._end(training, reason)

    def _end(self, training: Training, outcome: TrainingResult | BaseException) -> None:
        if isinstance(outcome, Exception):
            is_expected = isinstance(outcome, SDAPIError)
            log.warning("training %s ended: %s", training.id, outcome, exc_info=not is_expected)
        run, self._run, self._training = self._run, None, None
        try:
            if run is not None:
                run.close()
        except Exception:  # whatever a device raises that is asked to give memory back
            log.exception("training %s keeps memory", training.id)
        finally:
            self._line.finish(training, outcome)

    def _tell(self, monitor: TrainingMonitor, *, is_last: bool) -> None:
        """A line with a bar: at most every ten seconds, and at the end."""
        now = self._now()
        if is_last or now - self._told_at >= 10.0:
            self._told_at = now
            log.info("training %s", progress_text(monitor))


def progress_text(monitor: TrainingMonitor) -> str:
    """How far a training is, as a bar and in numbers."""
    done = round(_BAR_WIDTH * monitor.step / max(monitor.steps, 1))
    bar = "#" * done + "." * (_BAR_WIDTH - done)
    left_s = (monitor.steps - monitor.step) * monitor.update_s
    return (
        f"[{bar}] {monitor.step}/{monitor.steps}, loss {monitor.loss:.4f}, "
        f"{monitor.update_s:.2f} s a step, {left_s:.0f} s left"
    )
