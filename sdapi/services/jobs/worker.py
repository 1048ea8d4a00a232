"""One thread for each device: it loads torch, then runs one job after the other."""

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from sdapi.engine.jobs.extras_job import ExtrasJob
from sdapi.engine.jobs.job import ModelFile, Result
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.work import Work
from sdapi.errors import SDAPIError
from sdapi.logs import log_fields
from sdapi.services.jobs.preload import LoadFault, Preload
from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import Task, TaskRegistry
from sdapi.services.jobs.training_turns import TrainingEngine, TrainingTurns
from sdapi.settings import Settings

log = logging.getLogger(__name__)

_POLL_S = 0.5
#: of a thread that draws on the CPU, as of the processes that look at faces
_NICENESS = 5


class JobRunner(TrainingEngine, Protocol):
    """What a worker needs of an engine; a fake in tests."""

    def run(self, job: Work, monitor: Monitor) -> Result:
        """Draw a job; the monitor is told of each step, and stops it."""
        ...

    def load(self, checkpoint: ModelFile) -> None:
        """Make a checkpoint ready for jobs to come."""
        ...

    def has_loaded(self, checkpoint: ModelFile) -> bool:
        """Whether a checkpoint is in memory."""
        ...

    def clear(self) -> None:
        """Let go of every model that nothing uses."""
        ...

    @property
    def cache_figures(self) -> dict[str, float]:
        """Sizes and hits of the model cache, by their names."""
        ...


class EngineMaker(Protocol):
    """Where engines come from, so that nothing here imports torch."""

    def device_names(self, settings: Settings) -> list[str]:
        """The devices to draw on, one worker for each."""
        ...

    def make(self, settings: Settings, name: str) -> JobRunner:
        """The engine of a device; called in its worker's thread."""
        ...


class TorchEngines:
    """The real engines; the first call imports torch."""

    def device_names(self, settings: Settings) -> list[str]:
        from sdapi.engine.factory import device_names

        return device_names(settings)

    def make(self, settings: Settings, name: str) -> JobRunner:
        from sdapi.engine.factory import make_engine

        return make_engine(settings, name)


class ServingEngines(TorchEngines):
    """The same, in a process of which requests want answers while it draws.

    A full garbage collection stops every thread for as long as it takes to look at all objects,
    and torch and its neighbours bring half a million: what is imported once is not looked at again.
    """

    def make(self, settings: Settings, name: str) -> JobRunner:
        made = super().make(settings, name)
        gc.collect()
        gc.freeze()
        if name == "cpu":
            _yield_to_requests()
        return made


def _yield_to_requests() -> None:
    """Let this thread, and those that it starts, draw when nothing else is to be done.

    Linux has a niceness for each thread; elsewhere it would be the whole process's.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, niceness)


class Worker:
    """Takes tasks from the scheduler until it is stopped. A failing job costs no other."""

    def __init__(
        self,
        name: str,
        scheduler: Scheduler,
        tasks: TaskRegistry,
        turns: TrainingTurns,
        make_engine: Callable[[], JobRunner],
        first_checkpoint: Callable[[], ModelFile | None],
        on_failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.name = name
        self._scheduler = scheduler
        self._tasks = tasks
        self._turns = turns
        self._make_engine = make_engine
        self._on_failed = on_failed
        self._stop = threading.Event()
        self._wants_clear = threading.Event()
        self._preload = Preload(first_checkpoint)
        self._thread = threading.Thread(target=self._run, name=f"sdapi-{name}", daemon=True)
        #: monotonic time of the last sign of life; 0 before the engine is there
        self.last_beat = 0.0
        self.is_busy = False
        self.failure: BaseException | None = None
        self._engine: JobRunner | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the running job."""
        self._stop.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def request_clear(self) -> None:
        """Drop cached models before the next job."""
        self._wants_clear.set()

    def request_load(self, checkpoint: ModelFile) -> None:
        """Load a checkpoint once no job runs; a failure becomes the `load_fault`."""
        self._preload.request(checkpoint)

    @property
    def load_fault(self) -> LoadFault | None:
        """Why the checkpoint could not be loaded ahead of its first job; None when it could."""
        return self._preload.fault

    @property
    def cache_figures(self) -> dict[str, float]:
        """Of its engine's models; empty before there is one."""
        return {} if self._engine is None else self._engine.cache_figures

    @property
    def is_ready(self) -> bool:
        """Whether it can take jobs: the engine is there, and it beat lately or is drawing."""
        if self.last_beat == 0.0 or self.failure is not None:
            return False
        return self.is_busy or time.monotonic() - self.last_beat < 20 * _POLL_S

    def _run(self) -> None:
        try:
            engine = self._engine = self._make_engine()
            self._preload.look(engine, is_idle=True)
        except Exception as error:
            self.failure = error
            log.exception("worker %s cannot start", self.name)
            self._on_failed(error)
            return
        while not self._stop.is_set():
            if self._wants_clear.is_set():
                self._wants_clear.clear()
                engine.clear()
            self._load_ahead(engine)
            self.last_beat = time.monotonic()
            patience_s = 0.0 if self._turns.is_wanted else _POLL_S
            task = self._scheduler.take(lambda t: _is_loaded(engine, t), patience_s)
            if task is not None:
                self._do(engine, task)
            if self._turns.is_due(others_wait=self._scheduler.depth > 0):
                self._train(engine)
        self._turns.stop()

    def _train(self, engine: JobRunner) -> None:
        """Give training a turn: it ends soon, but may last longer than beats are apart."""
        self.is_busy = True
        try:
            self._turns.take(engine)
        finally:
            self.is_busy = False

    def _load_ahead(self, engine: JobRunner) -> None:
        """A load may last longer than beats are apart."""
        self.is_busy = True
        try:
            self._preload.look(engine, is_idle=self._scheduler.depth == 0)
        finally:
            self.is_busy = False

    def _do(self, engine: JobRunner, task: Task) -> None:
        job = task.job
        if job is None or not self._tasks.begin(task):
            return
        self.is_busy = True
        outcome: Result | BaseException
        drawing = _Drawing(self._turns)
        task.monitor.between_steps = drawing.between_steps
        try:
            with log_fields(task_id=task.id, uid=task.uid):
                outcome = engine.run(job, task.monitor)
            self._preload.note_use(job)
            if task.on_done is not None:
                task.on_done()
        except SDAPIError as error:
            outcome = error
        except Exception as error:
            log.exception("job %s failed", task.id)
            outcome = error
        finally:
            drawing.tell()
            task.monitor.between_steps = None
            self.is_busy = False
        self._tasks.finish(task, outcome)


class _Drawing:
    """How long a job has had the device, told to training as it goes."""

    def __init__(self, turns: TrainingTurns) -> None:
        self._turns = turns
        self._since = time.monotonic()

    def between_steps(self) -> None:
        self.tell()
        self._turns.take_between_steps()
        self._since = time.monotonic()

    def tell(self) -> None:
        now = time.monotonic()
        self._turns.earn(now - self._since)
        self._since = now


def _is_loaded(engine: JobRunner, task: Task) -> bool:
    if isinstance(task.job, ExtrasJob):
        return True
    return task.job is not None and engine.has_loaded(task.job.checkpoint)
