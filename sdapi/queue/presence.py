"""Which server processes live, told by heartbeats and no clock but each observer's own."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sdapi.errors import SDAPIError
from sdapi.queue.stores.store import Store

log = logging.getLogger(__name__)

#: a process beats this often
BEAT_S = 3.0
#: and is taken for dead when it has not beaten for this long
LEASE_S = 10.0
_LOOK_S = 1.0


@dataclass(slots=True)
class Presence:
    """Beats for this process, and buries those that have stopped.

    A dead process is known by its count of beats standing still, so no jump of a wall clock can
    kill one. It is taken over `LEASE_S` after its last beat at the earliest, and `LEASE_S +
    BEAT_S + _LOOK_S` at the latest.
    """

    store: Store
    node: str
    #: called when others have taken this process for dead, and its items with it
    on_lost: Callable[[], None]
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    _next_beat: float = 0.0

    async def run(self) -> None:
        """Until cancelled; `begin` comes first."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self._look()
            except SDAPIError as error:
                log.warning("cannot show that this server lives: %s", error)

    async def begin(self) -> None:
        """The first beat."""
        await self.store.beat(self.node)
        self._next_beat = time.monotonic() + BEAT_S

    async def _look(self) -> None:
        if time.monotonic() >= self._next_beat:
            is_known = await self.store.beat(self.node)
            self._next_beat = time.monotonic() + BEAT_S
            if not is_known:
                log.warning("this server was taken for dead; its consumers connect anew")
                self.on_lost()
        await self._bury_the_dead()

    async def _bury_the_dead(self) -> None:
        now = time.monotonic()
        beats = await self.store.beats()
        for node, count in beats.items():
            known, since = self._seen.get(node, (None, now))
            if known != count:
                self._seen[node] = (count, now)
            elif now - since >= LEASE_S and node != self.node:
                log.warning(
                    "server %s does not answer any more; its items are handed out again", node
                )
                await self.store.bury_node(node, count)
        self._seen = {node: seen for node, seen in self._seen.items() if node in beats}
