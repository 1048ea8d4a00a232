"""Tasks: every generation under its id, from waiting to its end."""

import itertools
import secrets
import string
import threading
import time
from asyncio import CancelledError
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from sdapi.engine.jobs.job import Result
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.work import Work
from sdapi.errors import Conflict, SDAPIError, ShuttingDown, TaskCancelled

_KEPT = 1000
#: ended jobs whose mean duration is shown
_DURATIONS = 16
#: why a task was cancelled
_NOT_BEGUN = "cancelled before it began"
_INTERRUPTED = "interrupted: what it drew is unfinished, or not all of it"
_STOPPED = "the server was stopped: what it drew is unfinished, or not all of it"
_ID_LETTERS = string.ascii_uppercase + string.digits
_ID_LENGTH = 7


class State(StrEnum):
    """Where a task is; the last three are final.

    One that was stopped while it ran is cancelled, though its caller gets what there is.
    """

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class Task:
    """One generation. `state` changes under the registry's lock; the rest is read by anyone."""

    id: str
    kind: str
    #: the caller's user id, for logs and records only
    uid: str | None = None
    state: State = State.QUEUED
    monitor: Monitor = field(default_factory=Monitor)
    #: the result to come; gone once there, so that old tasks keep no pictures
    future: "Future[Result] | None" = field(default_factory=Future)
    job: Work | None = None
    #: model files that were fetched for it and are needed until it ends
    files: frozenset[Path] = frozenset()
    #: called once by the worker when the job has succeeded
    on_done: Callable[[], None] | None = None
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    #: rises with every task, so that order needs no clock
    number: int = 0
    #: why it failed or was cancelled, in one sentence
    error: str | None = None
    #: of an inner generation: the task it belongs to, whose monitor it shares
    parent: "Task | None" = None
    #: the inner generation that waits or runs
    inner: "Task | None" = None
    #: of a task with inner generations: one of them was cut by an interrupt, or left out
    is_cut: bool = False
    #: the server stopped before it was done: what there is was not asked for
    is_cut_short: bool = False
    #: its pictures are still to be saved when all is drawn: it is over with `TaskRegistry.end`
    awaits_end: bool = False
    #: of one that awaits its end: what the drawing came to
    drawn: "_Drawn | None" = None

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (State.QUEUED, State.RUNNING)

    @property
    def is_wanted(self) -> bool:
        """Whether it is open, and nobody has stopped it."""
        return self.is_open and not self.monitor.interrupted.is_set()


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What a task will be when its pictures are saved, and what its observer will hear of."""

    ending: tuple[State, str | None]
    #: None for a task whose inner generations were told of one by one
    outcome: Result | BaseException | None


class TaskObserver(Protocol):
    """Hears of every job; called under the registry's lock, so it must be quick."""

    def began(self, task: Task) -> None:
        """A job has begun."""
        ...

    def ended(self, task: Task, outcome: Result | BaseException | None) -> None:
        """A job has ended, with a result or an error; None where it never ran."""
        ...


class TaskRegistry:
    """All tasks that wait or run, and the latest that ended."""

    def __init__(self, observer: TaskObserver | None = None) -> None:
        self._observer = observer
        #: guards the tasks and their states
        self._lock = threading.Lock()
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._numbers = itertools.count(1)
        self._running: list[Task] = []
        self._latest: Task | None = None
        self._idle = Monitor()
        #: seconds of the latest jobs that ended
        self._durations: deque[float] = deque(maxlen=_DURATIONS)

    def create(
        self,
        kind: str,
        task_id: str | None = None,
        uid: str | None = None,
        *,
        awaits_end: bool = False,
    ) -> Task:
        """A new queued task; raises `Conflict` while one of the same id waits or runs.

        One that awaits its end stays open when all is drawn, until whoever made it calls `end`.
        """
        with self._lock:
            task_id = task_id or self._new_id(kind)
            existing = self._tasks.get(task_id)
            if existing is not None and existing.is_open:
                raise Conflict(f"task '{task_id}' is already {existing.state}")
            number = next(self._numbers)
            task = Task(task_id, kind, uid, number=number, awaits_end=awaits_end)
            self._tasks.pop(task_id, None)
            self._tasks[task_id] = task
            self._forget_old()
            return task

    def create_inner(self, parent: Task, *, counts: bool = True) -> Task:
        """A queued task for one of several jobs of a task; only its parent has an id.

        The parent begins with its first inner one, and is drawn with `all_drawn`. One that does
        not count is stopped with its parent, and does not show in its progress.
        """
        monitor = parent.monitor
        if not counts:
            monitor = Monitor(interrupted=monitor.interrupted, skipped=monitor.skipped)
        inner = Task(parent.id, parent.kind, parent.uid, monitor=monitor, parent=parent)
        with self._lock:
            if parent.state is State.CANCELLED:
                self._cancel_queued(inner)
            else:
                parent.inner = inner
        return inner

    def all_drawn(self, task: Task, error: BaseException | None) -> None:
        """The inner generations of a task are over; an open one is failed by an error.

        One that was interrupted after all was drawn is whole.
        """
        with self._lock:
            if task.is_open:
                self._drew(task, _ending(task, error, was_stopped=task.is_cut), None)
                task.future = None

    def end(self, task: Task, error: BaseException | None) -> None:
        """End a task that awaits it: what it drew is saved, or an error has kept it from that.

        A task whose job still waits or runs ends with that.
        """
        with self._lock:
            task.awaits_end = False
            drawn, task.drawn = task.drawn, None
            if drawn is None:
                return
            ending, outcome = drawn.ending, drawn.outcome
            is_told = ending[0] is State.CANCELLED and isinstance(error, ShuttingDown)
            if isinstance(error, Exception) and not is_told:
                # Of a script the observer knows the drawings, which are whole, but not this end.
                ending, outcome = _ending(task, error, was_stopped=False), error
            self._close(task, ending, outcome)

    def refuse(self, task: Task, error: BaseException) -> None:
        """End a task that never came into the queue: failed, or cancelled if its caller left."""
        if not isinstance(error, SDAPIError) or isinstance(error, TaskCancelled):
            self.cancel(task)
            return
        with self._lock:
            if task.state is not State.QUEUED:
                return
            task.state, task.error = State.FAILED, _sentence(error)
            if self._observer is not None:
                self._observer.ended(task, error)
            self._leave(task)
            future, task.future = task.future, None
            if future is not None:
                future.cancel()

    def get(self, task_id: str) -> Task | None:
        """The task of an id, also a while after its end; None for an unknown one."""
        with self._lock:
            return self._tasks.get(task_id)

    @property
    def queued(self) -> list[Task]:
        """The tasks that wait, in the order they came."""
        with self._lock:
            return [task for task in self._tasks.values() if task.state is State.QUEUED]

    @property
    def running(self) -> Task | None:
        """The task that has run longest, None when idle."""
        with self._lock:
            return self._running[0] if self._running else None

    @property
    def latest(self) -> Task | None:
        """The task that was started last, whatever became of it."""
        return self._latest

    @property
    def idle_monitor(self) -> Monitor:
        """What is shown, and what interrupts are remembered in, while nothing runs."""
        return self._idle if self._latest is None else self._latest.monitor

    @property
    def mean_duration_s(self) -> float:
        """How long the latest jobs took, from start to end; 0 before the first."""
        with self._lock:
            return sum(self._durations) / len(self._durations) if self._durations else 0.0

    @property
    def open_count(self) -> int:
        """How many tasks wait or run."""
        with self._lock:
            return sum(task.is_open for task in self._tasks.values())

    @property
    def open_jobs(self) -> list[Work]:
        """What waits or runs, inner generations included."""
        with self._lock:
            tasks = [t for task in self._tasks.values() for t in (task, task.inner) if t]
            return [task.job for task in tasks if task.is_open and task.job is not None]

    @property
    def open_files(self) -> frozenset[Path]:
        """The model files that were fetched for what waits or runs."""
        with self._lock:
            return frozenset[Path]().union(*(t.files for t in self._tasks.values() if t.is_open))

    def begin(self, task: Task) -> bool:
        """Mark a task as running; False when it was cancelled meanwhile."""
        with self._lock:
            future = task.future
            if task.state is not State.QUEUED or future is None:
                return False
            if not future.set_running_or_notify_cancel():
                return False
            task.state = State.RUNNING
            task.started = time.time()
            shown = task.parent or task
            if shown.state is State.QUEUED or shown is task:
                shown.state = State.RUNNING
                shown.started = task.started
                self._running.append(shown)
                self._latest = shown
            if self._observer is not None:
                self._observer.began(task)
            return True

    def finish(self, task: Task, result: Result | BaseException) -> None:
        """End a running task and wake whoever waits for it."""
        with self._lock:
            error, was_stopped = None, False
            if isinstance(result, BaseException):
                error = result
            else:
                # A skip leaves out a batch, too, but whoever skips wants the rest.
                was_stopped = result.interrupted and task.monitor.interrupted.is_set()
            if task.parent is not None:
                task.parent.is_cut |= was_stopped
            self._drew(task, _ending(task, error, was_stopped=was_stopped), result)
            future, task.future, task.on_done = task.future, None, None
        if future is None:
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    def cancel(self, task: Task) -> None:
        """A queued task ends at once, a running one within a step; the rest stays as it is."""
        with self._lock:
            if task.state is State.QUEUED:
                self._cancel_queued(task)
            elif task.state is State.RUNNING and task.drawn is None:
                task.monitor.interrupted.set()
            if task.inner is not None and task.inner.state is State.QUEUED:
                self._cancel_queued(task.inner)

    def cut_short(self) -> None:
        """Let every running task stop within a step, because the server stops."""
        with self._lock:
            running = list(self._running)
            for task in running:
                # Who has interrupted it already knows that it is not whole.
                task.is_cut_short |= not task.monitor.interrupted.is_set()
        for task in running:
            self.cancel(task)

    def _cancel_queued(self, task: Task) -> None:
        task.state, task.error = State.CANCELLED, _NOT_BEGUN
        if task.parent is not None:
            task.parent.is_cut = True
        if self._observer is not None:
            self._observer.ended(task, None)
        task.finished = time.time()
        task.job = None
        future, task.future = task.future, None
        if future is not None:
            future.cancel()

    def _drew(
        self,
        task: Task,
        ending: tuple[State, str | None],
        outcome: Result | BaseException | None,
    ) -> None:
        """The device is done with a task: it is over, or its pictures are to be saved."""
        self._leave(task)
        if task.awaits_end and ending[0] is not State.FAILED:
            task.drawn = _Drawn(ending, outcome)
        else:
            self._close(task, ending, outcome)

    def _close(
        self,
        task: Task,
        ending: tuple[State, str | None],
        outcome: Result | BaseException | None,
    ) -> None:
        task.state, task.error = ending
        task.finished = time.time()
        if outcome is not None and self._observer is not None:
            self._observer.ended(task, outcome)

    def _leave(self, task: Task) -> None:
        """What every end of a task has in common; the lock is held."""
        task.finished = time.time()
        task.monitor.latent = task.monitor.preview = None
        task.job = task.inner = None
        if task in self._running:
            self._running.remove(task)
            self._durations.append(task.finished - (task.started or task.finished))

    def reject(self, task: Task, error: SDAPIError) -> None:
        """End a task that has not begun with an error for whoever waits for it."""
        with self._lock:
            if task.state is not State.QUEUED:
                return
            task.state = State.FAILED
            task.error = error.sentence
            task.finished = time.time()
            task.job = None
            future, task.future = task.future, None
            if self._observer is not None:
                self._observer.ended(task, error)
        if future is not None:
            future.set_exception(error)

    def _new_id(self, kind: str) -> str:
        letters = "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))
        return f"task({kind}-{letters})"

    def _forget_old(self) -> None:
        while len(self._tasks) > _KEPT:
            ended = next((key for key, t in self._tasks.items() if not t.is_open), None)
            if ended is None:
                return
            del self._tasks[ended]


def _ending(
    task: Task, error: BaseException | None, *, was_stopped: bool
) -> tuple[State, str | None]:
    """What a task that ran has come to, and why where that is not its whole result."""
    if isinstance(error, TaskCancelled | CancelledError) or (error is None and was_stopped):
        if task.started is None:
            return State.CANCELLED, _NOT_BEGUN
        return State.CANCELLED, _STOPPED if task.is_cut_short else _INTERRUPTED
    if error is not None:
        return State.FAILED, _sentence(error)
    return State.DONE, None


def _sentence(error: BaseException) -> str:
    """What a client may hear of an error: an unexpected one only its class."""
    return error.sentence if isinstance(error, SDAPIError) else type(error).__name__
