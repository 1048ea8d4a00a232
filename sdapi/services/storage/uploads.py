"""Uploading: a request's files side by side, at once; what could not be delivered, later."""

import asyncio
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio.to_thread

from sdapi.metrics import Metrics
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.outbox import Outbox, Upload
from sdapi.services.storage.retrying import with_retries
from sdapi.services.storage.stores.store import ObjectStore, Reason, StoreError

log = logging.getLogger(__name__)

_THREADS = 16
#: of those, for what is delivered later; requests come first
_LATER_AT_ONCE = 8
#: within a request; with their pauses about six seconds when a store refuses at once
_TRIES = 6
_LOOK_S = 30.0
_ROUND_S = 0.25
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
#: a bucket whose pause is so long by now is away, and does not just fail now and then
_AWAY_S = 4.0
#: the store will never take the file, however often it is offered
_FINAL = (Reason.EXISTS, Reason.BAD_NAME, Reason.TOO_LARGE)


@dataclass(frozen=True, slots=True)
class Pause:
    """A bucket that failed is let alone until then, and longer each time."""

    until: float
    length_s: float


class Uploads:
    """Delivers files to object stores. Lives on the event loop; stores are asked in threads."""

    def __init__(
        self,
        outbox: Outbox,
        store: Callable[[ObjectUrl], ObjectStore],
        metrics: Metrics,
        *,
        timeout_s: float,
    ) -> None:
        self._outbox = outbox
        self._store = store
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="sdapi-upload")
        self._closing = threading.Event()
        self._wake = asyncio.Event()
        self._running: dict[int, asyncio.Task[StoreError | None]] = {}
        self._pauses: dict[tuple[str, str], Pause] = {}
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
        await self._stop_delivering()
        self._pool.shutdown(wait=False, cancel_futures=True)
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _stop_delivering(self) -> None:
        if self._deliverer is not None:
            self._deliverer.cancel()
            await asyncio.gather(self._deliverer, return_exceptions=True)

    async def send(self, uploads: Sequence[Upload]) -> str:
        """Record files, then upload them; returns why some are still pending, or nothing.

        Raises `StorageFailed` when they cannot be recorded. Whatever happens afterwards, also to
        the caller, they are delivered.
        """
        recorded = await anyio.to_thread.run_sync(self._outbox.add, uploads)
        until = time.monotonic() + self._timeout_s
        tasks = [self._begin(upload, until) for upload in recorded]
        done, waiting = await asyncio.wait(tasks, timeout=self._timeout_s)
        problems = [str(error) for task in done if (error := task.result()) is not None]
        if waiting:
            problems.append(f"{uploads[0].url}: not uploaded within {self._timeout_s:g} s")
        return problems[0] if problems else ""

    def _begin(self, upload: Upload, until: float) -> "asyncio.Task[StoreError | None]":
        # A bucket that is known to be away gets one try, so that requests do not wait for it.
        pause = self._pauses.get(_bucket(upload))
        tries = 1 if pause is not None and pause.length_s >= _AWAY_S else _TRIES
        task = asyncio.create_task(self._deliver(upload, tries, until))
        self._running[upload.id] = task
        return task

    async def _deliver(self, upload: Upload, tries: int, until: float) -> StoreError | None:
        began = time.monotonic()
        if self._closing.is_set():
            self._running.pop(upload.id, None)
            return StoreError(Reason.UNREACHABLE, f"{upload.url}: the server is shutting down")
        try:
            loop = asyncio.get_running_loop()
            error = await loop.run_in_executor(self._pool, self._put, upload, tries, until)
            self._metrics.upload_seconds.observe(time.monotonic() - began)
            await anyio.to_thread.run_sync(self._settle, upload, error)
            self._note(upload, error)
            return error
        finally:
            self._running.pop(upload.id, None)
            self._wake.set()

    def _put(self, upload: Upload, tries: int, until: float) -> StoreError | None:
        """Upload a file; in a thread."""
        replaces = upload.replaces

        def put() -> None:
            nonlocal replaces
            try:
                self._store(upload.url).put(upload.url, upload.path, replaces=replaces)
            except StoreError as error:
                # What lies there now is the damaged rest of this very upload.
                replaces = replaces or error.reason is Reason.DAMAGED
                self._metrics.upload_errors.labels(error.reason).inc()
                raise

        try:
            with_retries(put, tries=tries, until=until, wait=self._closing.wait)
        except StoreError as error:
            return error
        except FileNotFoundError:
            return StoreError(Reason.BAD_NAME, f"{upload.url}: the file {upload.path} is gone")
        except Exception as error:  # a defect must not cost the file: its record stays
            log.exception("an upload failed")
            return StoreError(Reason.REFUSED, f"{upload.url}: {type(error).__name__}")
        return None

    def _settle(self, upload: Upload, error: StoreError | None) -> None:
        """Write down what became of a file; in a thread."""
        try:
            if error is None:
                self._outbox.remove([upload.id])
                if not upload.keeps_file:
                    upload.path.unlink(missing_ok=True)
            elif error.reason in _FINAL and self._outbox.has(upload.id):
                log.error("an upload was given up: %s; the file stays at %s", error, upload.path)
                self._outbox.refuse(upload.id, str(error))
        except (sqlite3.Error, OSError) as problem:
            # The file is offered again, which changes nothing.
            log.warning("the outbox cannot be written: %s", problem)

    def _note(self, upload: Upload, error: StoreError | None) -> None:
        bucket = _bucket(upload)
        if error is None or error.reason in _FINAL:
            self._pauses.pop(bucket, None)
            self._metrics.uploads.labels("stored" if error is None else "refused").inc()
            self.last_error = "" if error is None else str(error)
            return
        self._metrics.uploads.labels("pending").inc()
        known = self._pauses.get(bucket)
        if known is None:
            log.warning("an upload is pending: %s", error)
        if known is None or time.monotonic() >= known.until:
            length_s = min(2 * known.length_s, _LONGEST_PAUSE_S) if known else _FIRST_PAUSE_S
            self._pauses[bucket] = Pause(time.monotonic() + length_s, length_s)
        self.last_error = str(error)

    async def _deliver_later(self) -> None:
        while True:
            found = 0
            try:
                found = await self._round()
            except (sqlite3.Error, OSError) as problem:
                log.warning("the outbox cannot be read: %s", problem)
            except Exception:  # a defect must not end the deliveries of all other files
                log.exception("a round of deliveries failed")
            self._wake.clear()
            if found or self._running:
                await asyncio.sleep(_ROUND_S)
            with suppress(TimeoutError):
                # Files that another server of this data directory left are found by looking.
                await asyncio.wait_for(self._wake.wait(), _ROUND_S if found else _LOOK_S)

    async def _round(self) -> int:
        """Begin to deliver some of what waits; how much was found."""
        waiting = await anyio.to_thread.run_sync(
            self._outbox.waiting, 2 * _LATER_AT_ONCE, list(self._running)
        )
        places = max(1, _LATER_AT_ONCE - len(self._running))
        probed: Counter[tuple[str, str]] = Counter()
        for upload in waiting:
            bucket = _bucket(upload)
            pause = self._pauses.get(bucket)
            if pause is not None and (time.monotonic() < pause.until or probed[bucket]):
                continue
            if upload.id in self._running or places <= 0:
                continue
            places -= 1
            probed[bucket] += 1
            task = asyncio.create_task(self._deliver(replace(upload), 1, time.monotonic()))
            self._running[upload.id] = task
        return len(waiting)


def _bucket(upload: Upload) -> tuple[str, str]:
    return upload.url.scheme, upload.url.bucket
