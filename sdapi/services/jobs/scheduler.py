"""Jobs waiting for a device: order, limit, and a preference for loaded checkpoints."""

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from sdapi.errors import QueueFull, SDAPIError
from sdapi.services.jobs.tasks import State, Task

#: How far ahead a worker may look for a job whose checkpoint it has, and how often one may be
#: passed over.
_LOOK_AHEAD = 8
_MAX_OVERTAKEN = 4
#: Jobs that may be made beyond the limit: some will not wait, because a device is free.
_MADE_BEYOND = 4


@dataclass(slots=True)
class _Waiting:
    task: Task
    overtaken: int = 0


class Scheduler:
    """First come, first served, but for a bounded preference of what a worker has loaded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: guards everything below; notified on every change
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        #: tasks whose jobs are being made, and will be put
        self._being_made: set[Task] = set()
        #: those of which a model is on its way, for minutes perhaps
        self._aside: set[Task] = set()
        #: why nothing is taken any more
        self._refusal: SDAPIError | None = None

    @contextmanager
    def place(self, task: Task) -> Generator[None]:
        """Room for a task while its job is made: its pictures are not decoded to be refused then.

        Raises as `put`, which may still find the queue full.
        """
        with self._changed:
            self._claim(task)
        try:
            yield
        finally:
            with self._changed:
                self._being_made.discard(task)

    @contextmanager
    def aside(self, task: Task) -> Generator[None]:
        """Let others have a task's place, if it has one, while no device could serve it anyway.

        As many may step aside as may wait. Raises `QueueFull` for one more, and at the end where
        there is no place left to come back to; a task that has begun is not refused.
        """
        with self._changed:
            if len(self._aside) >= self._limit and not _has_begun(task):
                raise QueueFull(
                    f"{len(self._aside)} jobs wait for models of object stores already; "
                    f"{self._limit} may wait; try later"
                )
            had_place = task in self._being_made
            self._being_made.discard(task)
            self._aside.add(task)
        try:
            yield
        finally:
            with self._changed:
                self._aside.discard(task)
        if had_place:
            with self._changed:
                self._claim(task)

    def put(self, task: Task) -> None:
        """Queue a task with its job; raises `QueueFull`, or `ShuttingDown` once closed."""
        with self._changed:
            self._check_open()
            self._drop_cancelled()
            waiting = self._tasks_waiting()
            if len(waiting) >= self._limit and not _has_begun(task) and _whole(task) not in waiting:
                raise self._full(len(waiting))
            self._waiting.append(_Waiting(task))
            self._changed.notify()

    def take(self, is_loaded: Callable[[Task], bool], timeout_s: float) -> Task | None:
        """The next task for a worker; None when none came in time or the scheduler was closed."""
        with self._changed:
            self._drop_cancelled()
            if not self._waiting:
                self._changed.wait(timeout_s)
                self._drop_cancelled()
            if not self._waiting:
                return None
            chosen = self._choose(is_loaded)
            self._waiting.remove(chosen)
            return chosen.task

    def position(self, task: Task) -> int | None:
        """How many tasks stand before one, None when it does not wait."""
        with self._changed:
            tasks = [w.task.parent or w.task for w in self._waiting if w.task.state is State.QUEUED]
        return tasks.index(task) if task in tasks else None

    @property
    def depth(self) -> int:
        return len(self._waiting)

    def close(self, error: SDAPIError) -> list[Task]:
        """Refuse what comes from now on with `error`; return what was waiting."""
        with self._changed:
            self._refusal = error
            left = [w.task for w in self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
        return left

    def _claim(self, task: Task) -> None:
        self._check_open()
        self._drop_cancelled()
        waiting = self._tasks_waiting()
        claimed = len(waiting | self._being_made)
        is_full = len(waiting) >= self._limit or claimed >= self._limit + _MADE_BEYOND
        if is_full and not _has_begun(task):
            raise self._full(claimed)
        self._being_made.add(task)

    def _tasks_waiting(self) -> set[Task]:
        """What counts against the limit: a task once, however many inner ones it has."""
        return {_whole(each.task) for each in self._waiting}

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise type(self._refusal)(self._refusal.detail)

    def _full(self, count: int) -> QueueFull:
        return QueueFull(
            f"{count} jobs are waiting or being made already; {self._limit} may wait; try later"
        )

    def _choose(self, is_loaded: Callable[[Task], bool]) -> _Waiting:
        head = self._waiting[0]
        if head.overtaken >= _MAX_OVERTAKEN or is_loaded(head.task):
            return head
        for candidate in list(self._waiting)[1:_LOOK_AHEAD]:
            if is_loaded(candidate.task):
                head.overtaken += 1
                return candidate
        return head

    def _drop_cancelled(self) -> None:
        if any(w.task.state is not State.QUEUED for w in self._waiting):
            self._waiting = deque(w for w in self._waiting if w.task.state is State.QUEUED)


def _whole(task: Task) -> Task:
    """The task that an inner one belongs to, or itself."""
    return task.parent or task


def _has_begun(task: Task) -> bool:
    """Whether a task is not to be stopped half-way: its place was given to it at first."""
    return _whole(task).state is State.RUNNING
