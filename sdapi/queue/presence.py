"""Which server processes live, told by heartbeats and no clock but each observer's own."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sdapi.queue.going_on import GoingOn
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
    BEAT_S + _LOOK_S` at the latest. Time in which nobody could look, as the store was away or this
    process stood still, is not held against the others: their silence is counted anew after it.
    """

    store: Store
    node: str
    #: called when others have taken this process for dead, and its items with it
    on_lost: Callable[[], None]
    #: seconds that never jump
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    _next_beat: float = 0.0
    _last_look: float = 0.0

    async def run(self) -> None:
        """Until cancelled; `begin` comes first."""
        while True:
            await asyncio.sleep(_LOOK_S)
            with GoingOn("cannot show that this server lives"):
                await self.look()

    async def begin(self) -> None:
        """The first beat."""
        await self.store.begin_node(self.node)
        self._next_beat = self.clock() + BEAT_S

    async def look(self) -> None:
        """Beat when it is time, and look whether the others still do; `run` does it by itself."""
        if self.clock() >= self._next_beat:
            if not await self.store.beat(self.node):
                log.warning("this server was taken for dead; its consumers connect anew")
                self.on_lost()
                await self.store.begin_node(self.node)
            self._next_beat = self.clock() + BEAT_S
        await self._bury_the_dead()

    async def _bury_the_dead(self) -> None:
        beats = await self.store.beats()
        now, last = self.clock(), self._last_look
        self._last_look = now
        if now - last > BEAT_S:
            self._seen.clear()
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
