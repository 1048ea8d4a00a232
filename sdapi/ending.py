"""Ending tasks for good."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

#: between one cancellation and the next
_AGAIN_S: Final = 1.0
_LIMIT_S: Final = 30.0


async def end_tasks(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks and wait for their end, whatever it is, for up to 30 s.

    They are cancelled more than once: `asyncio.wait_for` of Python 3.11 may drop a cancellation
    that comes when what it waits for has just been done, and libraries are built on it.
    """
    left = set(tasks)
    for task in left:
        task.add_done_callback(_see)
    for _ in range(int(_LIMIT_S / _AGAIN_S)):
        for task in left:
            task.cancel()
        if not left:
            return
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)


def _see(task: "asyncio.Task[Any]") -> None:
    """An error that nobody has looked at would be logged."""
    if not task.cancelled():
        task.exception()
