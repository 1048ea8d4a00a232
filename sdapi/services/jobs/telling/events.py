"""A task's progress as a stream of statuses: one for each change, until the task is over."""

import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import anyio

from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import Task
from sdapi.services.jobs.telling.status import TaskStatus, status_of

#: how often is looked, and how long at most nothing is said
_LOOK_S = 0.1
_SILENCE_S = 15.0


async def statuses(task: Task, scheduler: Scheduler) -> AsyncGenerator[TaskStatus]:
    """The task's status now, at every change, and at least every 15 s; ends with the task."""
    said, said_at = None, 0.0
    while True:
        status = status_of(task, scheduler)
        # The estimate changes all the time; alone it is no news.
        news = replace(status, eta_s=None)
        if news != said or time.monotonic() - said_at > _SILENCE_S:
            said, said_at = news, time.monotonic()
            yield status
        if status.is_over:
            return
        await anyio.sleep(_LOOK_S)
