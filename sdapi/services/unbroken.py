"""Work that must not stop half-way, whatever becomes of whoever waits for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Made = TypeVar("_Made")


async def unbroken(work: Coroutine[Any, Any, _Made]) -> _Made:
    """What a coroutine returns; when the caller is cancelled, it goes on to its end by itself."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(forget)
        raise


async def to_its_end(work: Coroutine[Any, Any, _Made]) -> _Made:
    """What a coroutine returns; a caller that is cancelled goes on when it has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        forget(task)
        raise


def forget(work: "asyncio.Future[Any]") -> None:
    """Nobody waits for it any more; asyncio would complain of an error that nobody saw."""
    if not work.cancelled():
        work.exception()
