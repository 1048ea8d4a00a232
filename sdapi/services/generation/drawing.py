"""Tasks on their way through the queue of a device, and whoever waits for them."""

import asyncio
from dataclasses import dataclass
from typing import TypeVar

from sdapi.engine.jobs.job import Result
from sdapi.errors import TaskCancelled
from sdapi.services.generation.order import Order
from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import Task, TaskRegistry
from sdapi.services.unbroken import forget

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Drawing:
    """Has jobs drawn, for callers that may go away meanwhile."""

    tasks: TaskRegistry
    scheduler: Scheduler

    async def drawn(self, task: Task) -> Result:
        """Queue a task that has its job, and wait for the result.

        Raises `QueueFull`, `TaskCancelled` when it was cancelled before it began, or what the
        engine raised.
        """
        if task.future is None:
            raise TaskCancelled(f"task '{task.id}' was cancelled")
        future = asyncio.wrap_future(task.future)
        try:
            self.scheduler.put(task)
        except BaseException as error:
            self.tasks.refuse(task, error)
            raise
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.cancelled():
                raise TaskCancelled(f"task '{task.id}' was cancelled") from None
            raise

    async def outcome(self, order: Order, work: "asyncio.Future[_Made]") -> _Made:
        """What work on an order makes.

        A client that goes away cancels its task, unless it gave it an id.
        """
        caller, task = order.caller, order.task
        keeps_running = bool(order.eas.id_task)
        if caller.wait_disconnected is None or keeps_running:
            return await self._shielded(work, task, cancels=not keeps_running)
        gone = asyncio.ensure_future(caller.wait_disconnected())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.tasks.cancel(task)
            return await self._shielded(work, task, cancels=True)
        finally:
            gone.cancel()

    async def _shielded(self, work: "asyncio.Future[_Made]", task: Task, *, cancels: bool) -> _Made:
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if cancels:
                self.tasks.cancel(task)
            work.add_done_callback(forget)
            raise
