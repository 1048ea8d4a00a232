"""Uploading: a request's files side by side, at once; what could not be delivered, later."""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import anyio.to_thread

from sdapi.metrics import Metrics
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.delivery.attempt import Attempt, Outcome
from sdapi.services.storage.delivery.outbox import Outbox
from sdapi.services.storage.delivery.turns import Turns, free_places
from sdapi.services.storage.delivery.upload import Upload
from sdapi.services.storage.stores.store import Reason, StoreError

log = logging.getLogger(__name__)

#: requests' uploads at once, half of them for a bucket alone, and those of what is delivered later,
#: in threads of their own
_AT_ONCE, _LATER_AT_ONCE = 32, 16
#: within a request; with their pauses about six seconds when a store refuses at once
_TRIES = 6
#: how long nobody else tries a file: while its request waits for it and a little longer
_CLAIM_AFTER_S = 5.0
#: and while it is tried later
_CLAIM_S = 120.0
#: between looks into the outbox: when nothing waits there, nothing may be tried yet, or some is
_LOOK_S, _WAITING_S, _ROUND_S = 30.0, 1.0, 0.25
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
#: a bucket whose pause is so long by now is away, and does not just fail now and then
_AWAY_S = 4.0

Running = asyncio.Task[StoreError | None]


@dataclass(frozen=True, slots=True)
class Pause:
    """A bucket that failed is let alone until then, and longer each time."""

    until: float
    length_s: float


class Uploads:
    """Delivers files to object stores. Lives on the event loop; stores are asked in threads.

    A file that fails for a reason of its own waits longer each time, and no other waits for it. A
    bucket that fails is let alone as a whole.
    """

    def __init__(
        self,
        outbox: Outbox,
        attempt: Attempt,
        metrics: Metrics,
        *,
        timeout_s: float,
    ) -> None:
        self._outbox = outbox
        self._attempt = attempt
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._turns = Turns(_AT_ONCE)
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sdapi-upload")
        self._later_pool = ThreadPoolExecutor(_LATER_AT_ONCE, thread_name_prefix="sdapi-later")
        self._closing = threading.Event()
        self._wake = asyncio.Event()
        self._running: dict[int, Running] = {}
        #: the buckets of those that are delivered later
        self._later: dict[int, str] = {}
        #: the latest for each object: two at a time could end in the wrong order
        self._of_url: dict[ObjectUrl, Running] = {}
        self._pauses: dict[str, Pause] = {}
        self._deliverer: asyncio.Task[None] | None = None
        #: why the latest file was not delivered; empty once one was
        self.last_error = ""

    def start(self) -> None:
        """Deliver what waits from before, and what will."""
        self._deliverer = asyncio.create_task(self._deliver_later(), name="outbox")

    async def drain(self) -> None:
        """Wait for the uploads that are under way, and begin none of those that wait."""
        await self._stop_delivering()
        while self._running:
            await asyncio.wait(list(self._running.values()))

    async def close(self) -> None:
        """Stop; what is not delivered stays recorded."""
        self._closing.set()
        self._attempt.stop()
        await self._stop_delivering()
        for pool in (self._pool, self._later_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        running = dict(self._running)
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
        with suppress(sqlite3.Error, OSError):  # their claims end by themselves
            await anyio.to_thread.run_sync(self._outbox.release, running)

    async def _stop_delivering(self) -> None:
        if self._deliverer is not None:
            self._deliverer.cancel()
            await asyncio.gather(self._deliverer, return_exceptions=True)

    async def begin(self, groups: Sequence[Sequence[Upload]]) -> list[Running]:
        """Record files, and begin to upload them; a group is a picture and what lies beside it.

        Raises `StorageFailed` when they cannot be recorded. Whatever happens afterwards, also to
        the caller, they are delivered.
        """
        claimed_s = self._timeout_s + _CLAIM_AFTER_S
        recorded = await anyio.to_thread.run_sync(
            lambda: self._outbox.add(groups, claimed_s=claimed_s)
        )
        until = time.monotonic() + self._timeout_s
        return [self._begin(upload, self._at_once(upload, until)) for upload in recorded]

    async def wait(self, running: Sequence[Running]) -> str:
        """Why some of a request's uploads are still pending when its time is over, or nothing."""
        if not running:
            return ""
        done, waiting = await asyncio.wait(running, timeout=self._timeout_s)
        results = [task.result() for task in running if task in done]
        problems = [str(error) for error in results if error is not None]
        if waiting:
            names = ", ".join(sorted(task.get_name() for task in waiting)[:1])
            problems.append(f"{names}: not uploaded within {self._timeout_s:g} s")
        return problems[0] if problems else ""

    def _tries(self, upload: Upload) -> int:
        # A bucket that is known to be away gets one try, so that requests do not wait for it.
        pause = self._pauses.get(upload.bucket)
        return 1 if pause is not None and pause.length_s >= _AWAY_S else _TRIES

    def _begin(self, upload: Upload, attempt: Callable[[], Awaitable[Outcome]]) -> Running:
        before = [self._of_url.get(upload.url), self._running.get(upload.leader)]
        after = [task for task in before if task is not None]
        task = asyncio.create_task(self._deliver(upload, attempt, after), name=str(upload.url))
        self._running[upload.id] = self._of_url[upload.url] = task
        return task

    def _at_once(self, upload: Upload, until: float) -> Callable[[], Awaitable[Outcome]]:
        """An upload as its request waits for it: when its bucket has a place."""
        made = partial(self._attempt.made, upload, self._tries(upload), until)

        async def attempt() -> Outcome:
            try:
                async with self._turns.turn(upload.bucket, until - time.monotonic()):
                    return await asyncio.get_running_loop().run_in_executor(self._pool, made)
            except TimeoutError:  # its claim ends with its request's time, and then it is tried
                sentence = f"{upload.url}: other uploads to {upload.bucket} take too long"
                return Outcome(StoreError(Reason.REFUSED, sentence), is_held=True)

        return attempt

    def _later_on(self, upload: Upload) -> Callable[[], Awaitable[Outcome]]:
        """An upload that nobody waits for; its place was counted when it was begun."""
        made = partial(self._attempt.made, upload, 1, time.monotonic())

        async def attempt() -> Outcome:
            return await asyncio.get_running_loop().run_in_executor(self._later_pool, made)

        return attempt

    async def _deliver(
        self,
        upload: Upload,
        attempt: Callable[[], Awaitable[Outcome]],
        after: Sequence[Running],
    ) -> StoreError | None:
        try:
            if after:
                await asyncio.wait(after)
            if self._closing.is_set():
                return StoreError(Reason.UNREACHABLE, f"{upload.url}: the server is shutting down")
            began = time.monotonic()
            outcome = await attempt()
            if not outcome.is_held:
                self._metrics.upload_seconds.observe(time.monotonic() - began)
                self._note(upload.bucket, outcome)
            return outcome.error
        finally:
            self._running.pop(upload.id, None)
            self._later.pop(upload.id, None)
            if self._of_url.get(upload.url) is asyncio.current_task():
                del self._of_url[upload.url]
            self._wake.set()

    def _note(self, bucket: str, outcome: Outcome) -> None:
        error = outcome.error
        if error is None or outcome.is_refused:
            self._pauses.pop(bucket, None)
            self._metrics.uploads.labels("stored" if error is None else "refused").inc()
            self.last_error = "" if error is None else str(error)
            return
        self._metrics.uploads.labels("pending").inc()
        self.last_error = str(error)
        if not error.concerns_bucket:
            return
        known = self._pauses.get(bucket)
        if known is None:
            log.warning("uploads are pending: %s", error)
        if known is None or time.monotonic() >= known.until:
            length_s = min(2 * known.length_s, _LONGEST_PAUSE_S) if known else _FIRST_PAUSE_S
            self._pauses[bucket] = Pause(time.monotonic() + length_s, length_s)

    async def _deliver_later(self) -> None:
        while True:
            pause_s = _LOOK_S  # files that another server of this data directory left
            try:
                buckets = await anyio.to_thread.run_sync(self._outbox.buckets)
                if buckets:
                    pause_s = _ROUND_S if await self._round(buckets) else _WAITING_S
            except (sqlite3.Error, OSError) as problem:
                log.warning("the outbox cannot be read: %s", problem)
            except Exception:  # a defect must not end the deliveries of all other files
                log.exception("a round of deliveries failed")
            self._wake.clear()
            await asyncio.sleep(_ROUND_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause_s)

    async def _round(self, buckets: Sequence[str]) -> bool:
        """Begin to deliver some of what waits; whether there was anything to begin."""
        now, has_begun = time.monotonic(), False
        able = [b for b in buckets if (pause := self._pauses.get(b)) is None or now >= pause.until]
        # Those first that have the fewest places, so that everybody gets some.
        for bucket in sorted(able, key=list(self._later.values()).count):
            places = self._places(bucket)
            if not places:
                continue
            for upload in await self._claimed(bucket, places):
                if upload.id not in self._running:
                    self._later[upload.id] = bucket
                    self._begin(upload, self._later_on(upload))
                    has_begun = True
        return has_begun

    async def _claimed(self, bucket: str, places: int) -> list[Upload]:
        claim = partial(self._outbox.claim, bucket, places, claimed_s=_CLAIM_S)
        claiming = asyncio.ensure_future(anyio.to_thread.run_sync(claim))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:  # nobody here begins them, and others need not wait
            with suppress(sqlite3.Error, OSError):
                ids = [upload.id for upload in await claiming]
                await anyio.to_thread.run_sync(self._outbox.release, ids)
            raise

    def _places(self, bucket: str) -> int:
        """How many more files of a bucket may be delivered now; one tells whether it is back."""
        own = list(self._later.values()).count(bucket)
        if bucket in self._pauses:
            return max(0, 1 - own)
        return free_places(_LATER_AT_ONCE, own, len(self._later) - own)
