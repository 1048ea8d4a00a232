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
        #: jobs that are being made, and will be put
        self._being_made = 0
        #: why nothing is taken any more
        self._refusal: SDAPIError | None = None

    @contextmanager
    def place(self) -> Generator[None]:
        """Room for a job while it is made: its pictures are not decoded to be refused then.

        Raises as `put`, which may still find the queue full.
        """
        with self._changed:
            self._check_open()
            self._drop_cancelled()
            beyond = self._limit + _MADE_BEYOND
            if len(self._waiting) >= self._limit or self._claimed >= beyond:
                raise self._full(self._claimed)
            self._being_made += 1
        try:
            yield
        finally:
            with self._changed:
                self._being_made -= 1

    def put(self, task: Task) -> None:
        """Queue a task with its job; raises `QueueFull`, or `ShuttingDown` once closed."""
        with self._changed:
            self._check_open()
            self._drop_cancelled()
            # A task that has begun is not stopped half-way: its place was given to it at first.
            has_begun = task.parent is not None and task.parent.state is State.RUNNING
            if len(self._waiting) >= self._limit and not has_begun:
                raise self._full(len(self._waiting))
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

    @property
    def _claimed(self) -> int:
        return len(self._waiting) + self._being_made

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
