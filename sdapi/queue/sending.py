"""How far an answer has come on its way to its reader.

What was written lies in this process's memory, then in the system's; a reader that stops, or goes,
never sees it. So what is deleted because it was read waits for this.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

#: the ASGI extension by which the server tells a request's connection, under this name again
CONNECTION = "sdapi.connection"
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


async def until_none(
    left: Callable[[], int], connection: Connection, stall_s: float | None = None
) -> bool:
    """Wait until no bytes are `left`; False when the connection ends, or stalls for so long."""
    before, moved_at, pause_s = -1, time.monotonic(), 0.0
    while not connection.is_closing():
        now_left = left()
        if not now_left:
            return True
        if now_left != before:
            before, moved_at = now_left, time.monotonic()
        elif stall_s is not None and time.monotonic() - moved_at > stall_s:
            return False
        await asyncio.sleep(pause_s)
        pause_s = min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
    return False
