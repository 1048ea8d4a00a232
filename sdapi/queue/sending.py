"""How far an answer has come on its way to its reader.

What was written lies in this process's memory, then in the system's; a reader that stops, or goes,
never sees it. So what is deleted because it was read waits for this.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

log = logging.getLogger(__name__)

#: the ASGI extension by which the server tells a request's connection, under this name again
CONNECTION = "sdapi.connection"
#: what a peer may leave unconfirmed for a while, though it is there: one segment of a loopback
_END_BYTES = 64 << 10
_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05


class Connection(Protocol):
    """The way back to a client."""

    def waiting_bytes(self) -> int:
        """What has not left this machine."""
        ...

    def unconfirmed_bytes(self) -> int:
        """The same, and what has left, but is not confirmed by the other machine."""
        ...

    def is_closing(self) -> bool: ...

    def abort(self) -> None:
        """End it at once, with what waits."""
        ...


def connection_of(scope: Mapping[str, Any]) -> Connection | None:
    """A request's connection; None where a server, such as that of a test, tells none."""
    extension = scope.get("extensions", {}).get(CONNECTION, {})
    return cast(Connection | None, extension.get(CONNECTION))


async def until_left(connection: Connection, stall_s: float | None = None) -> bool:
    """Wait until all has left this machine.

    False when the connection ends before, or nothing leaves for `stall_s`.
    """
    return await _until_none(connection.waiting_bytes, connection, stall_s)


async def until_arrived(connection: Connection, stall_s: float | None = None) -> bool:
    """Wait until all has left, and has been confirmed but for its end.

    False when the connection ends before, or nothing leaves for `stall_s`. Systems confirm the end
    late, to do it together with what they answer.
    """

    def missing() -> int:
        return connection.waiting_bytes() or max(connection.unconfirmed_bytes() - _END_BYTES, 0)

    return await _until_none(missing, connection, stall_s)


@asynccontextmanager
async def cut_off_when_stalled(
    connection: Connection | None, stall_s: float
) -> AsyncGenerator[None]:
    """Within, a connection is ended once its reader has taken nothing of what waits for it.

    After `stall_s`, and up to a tenth more. Whoever waits for the client's going hears of it.
    Nothing is done where the server does not tell the connection.
    """
    if connection is None:
        yield
        return
    guard = asyncio.create_task(_cut_off(connection, stall_s))
    try:
        yield
    finally:
        guard.cancel()


async def _cut_off(connection: Connection, stall_s: float) -> None:
    while await until_left(connection, stall_s):
        await asyncio.sleep(stall_s / 10)
    if not connection.is_closing():
        log.warning("a reader has taken nothing for %g s and is cut off", stall_s)
        connection.abort()


async def _until_none(
    left: Callable[[], int], connection: Connection, stall_s: float | None
) -> bool:
    before, moved_at, pause_s = 0, time.monotonic(), 0.0
    while not connection.is_closing():
        now_left = left()
        if not now_left:
            return True
        if now_left < before:  # more is none: the answer to a ping waits behind what is not read
            moved_at = time.monotonic()
        elif stall_s is not None and time.monotonic() - moved_at > stall_s:
            return False
        before = now_left
        await asyncio.sleep(pause_s)
        pause_s = min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
    return False
