"""Places for uploads at once, shared so that one bucket's uploads never hold them all."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


def free_places(places: int, own: int, others: int) -> int:
    """How many more of all places a bucket may take that holds `own`, while the others hold theirs.

    It may have half of those that the others leave, at least one: it may turn out to give no
    answer, and would hold them for minutes.
    """
    left = places - others
    return max(0, min(max(1, left // 2), left) - own)


class Turns:
    """Lets uploads go as their buckets have places. Lives on the event loop."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._held = Counter[str]()
        #: uploads that wait for a place, in their order; no bucket without any
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, bucket: str, wait_s: float) -> AsyncGenerator[None]:
        """Holds a place of a bucket within; raises `TimeoutError` when none was free in time."""
        await self._take(bucket, wait_s)
        try:
            yield
        finally:
            self._give_back(bucket)

    def _free(self, bucket: str) -> int:
        own = self._held[bucket]
        return free_places(self._places, own, self._held.total() - own)

    async def _take(self, bucket: str, wait_s: float) -> None:
        if bucket not in self._waiting and self._free(bucket):
            self._held[bucket] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(bucket, deque()).append(turn)
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except BaseException:  # also a cancellation, which must not keep the place
            if turn.cancelled():
                self._forget(bucket, turn)
            else:  # it was given the place in the same moment
                self._give_back(bucket)
            raise

    def _give_back(self, bucket: str) -> None:
        """Free a place, and let those go that may now: of the bucket with the fewest first."""
        self._held[bucket] -= 1
        if not self._held[bucket]:
            del self._held[bucket]
        while able := [each for each in self._waiting if self._free(each)]:
            luckiest = min(able, key=self._held.__getitem__)
            turn = self._waiting[luckiest][0]
            self._forget(luckiest, turn)
            if not turn.done():  # else its upload was cancelled, and has yet to learn it
                self._held[luckiest] += 1
                turn.set_result(None)

    def _forget(self, bucket: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(bucket, deque())
        if turn in waiting:
            waiting.remove(turn)
        if not waiting:
            self._waiting.pop(bucket, None)
