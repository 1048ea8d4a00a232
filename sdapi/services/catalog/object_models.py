"""Checkpoints, VAEs and LoRAs that a request names as `oss://bucket/key`."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from sdapi.errors import BadRequest, SDAPIError, ShuttingDown, StoreUnavailable, TaskCancelled
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.client_errors import as_client_error
from sdapi.services.storage.storage import Storage
from sdapi.services.storage.stores.store import StoreError, TransferStopped
from sdapi.services.unbroken import forget

_SUFFIXES = (".safetensors", ".ckpt", ".pt")
_BESIDE = (".yaml",)
#: of objects that are fetched at a time, and of those that stores are asked for
_FETCHING, _ASKING = 4, 32
#: for all of it: turns, retries and the transfer
_TIMEOUT_S = 3600.0
_LOOK_S = 0.25


class NotFetched(Exception):
    """A model of an object store is needed, and has not been asked for yet."""

    def __init__(self, url: str, field: str) -> None:
        super().__init__(f"{field} {url}")
        self.url = url
        self.field = field


@dataclass(slots=True)
class FetchedModels:
    """What became of the objects that one request names; looking up models needs no store."""

    found: dict[str, Path | SDAPIError] = field(default_factory=dict[str, Path | SDAPIError])

    def file(self, url: str, *, field: str) -> Path:
        """The file of a URL, with its `.yaml` beside it if there is one.

        Raises `NotFetched`, or why it could not be fetched: `PathNotAllowed`, `BadRequest`,
        `BadUrl` for what is not there or too large, `StoreUnavailable`, `StoreRefused`,
        `StorageFailed`.
        """
        if (found := self.found.get(url)) is None:
            raise NotFetched(url, field)
        if isinstance(found, SDAPIError):
            raise found
        return found

    @property
    def paths(self) -> frozenset[Path]:
        """The files."""
        return frozenset(each for each in self.found.values() if isinstance(each, Path))


@dataclass(slots=True)
class _Fetch:
    """One object on its way, and how many requests wait for it."""

    task: "asyncio.Task[Path]"
    stop: threading.Event
    waiting: int = 0


class ObjectModels:
    """Fetches model files, each once for all who want it. Lives on the event loop."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._fetches: dict[ObjectUrl, _Fetch] = {}
        self._is_closed = False
        self._fetching = anyio.CapacityLimiter(_FETCHING)
        self._asking = anyio.CapacityLimiter(_ASKING)

    async def fetch(
        self, models: FetchedModels, needed: NotFetched, is_wanted: Callable[[], bool]
    ) -> None:
        """Add an object's file to those of a request, or why there is none.

        Raises `TaskCancelled` when nobody wants it any more; the transfer ends when that holds for
        everybody.
        """
        try:
            models.found[needed.url] = await self._file(needed, is_wanted)
        except TaskCancelled:
            raise
        except SDAPIError as error:
            models.found[needed.url] = error

    def close(self) -> None:
        """End all transfers, and begin none: no job takes what they bring."""
        self._is_closed = True
        for fetch in self._fetches.values():
            fetch.stop.set()

    async def _file(self, needed: NotFetched, is_wanted: Callable[[], bool]) -> Path:
        url, _ = self._storage.places.allowed(needed.url, field=needed.field)
        if not url.name.lower().endswith(_SUFFIXES):
            names = ", ".join(_SUFFIXES)
            raise BadRequest(f"{needed.field} {url}: a model's name ends in {names}")
        if self._is_closed:
            raise _shutting_down()
        fetch = self._fetches.get(url) or self._begin(url)
        fetch.waiting += 1
        try:
            await self._done(fetch.task, needed, is_wanted)
            return fetch.task.result()
        except StoreError as error:
            raise as_client_error(error, needed.field) from error
        except TransferStopped as error:
            raise _shutting_down() from error
        finally:
            fetch.waiting -= 1
            if not fetch.waiting:
                self._end(url, fetch)

    def _begin(self, url: ObjectUrl) -> _Fetch:
        stop = threading.Event()
        task = asyncio.create_task(self._fetched(url, stop), name=f"fetch {url}")
        task.add_done_callback(forget)
        fetch = self._fetches[url] = _Fetch(task, stop)
        return fetch

    def _end(self, url: ObjectUrl, fetch: _Fetch) -> None:
        fetch.stop.set()
        if self._fetches.get(url) is fetch:
            del self._fetches[url]

    async def _fetched(self, url: ObjectUrl, stop: threading.Event) -> Path:
        files = self._storage.files
        found = await anyio.to_thread.run_sync(files.find, url, limiter=self._asking)
        if found is None:
            fetch = partial(files.fetch, url, beside=_BESIDE, is_stopped=stop.is_set)
            found = await anyio.to_thread.run_sync(fetch, limiter=self._fetching)
        return found

    async def _done(
        self, task: "asyncio.Task[Path]", needed: NotFetched, is_wanted: Callable[[], bool]
    ) -> None:
        """Wait for a transfer for as long as it is wanted."""
        end = asyncio.get_running_loop().time() + _TIMEOUT_S
        while not task.done():
            if not is_wanted():
                raise TaskCancelled(f"cancelled while {needed.field} {needed.url} was fetched")
            if self._is_closed:  # also where the store does not let go of the transfer
                raise _shutting_down()
            if asyncio.get_running_loop().time() > end:
                raise StoreUnavailable(f"{needed}: not fetched within {_TIMEOUT_S:g} s")
            await asyncio.wait({task}, timeout=_LOOK_S)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the server is shutting down")
