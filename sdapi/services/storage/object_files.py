"""Large objects, such as checkpoints, on local disk by their ETag, within a budget of bytes."""

import hashlib
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from sdapi.errors import StorageFailed
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.retrying import with_retries
from sdapi.services.storage.stores.store import ObjectInfo, ObjectStore, Reason, StoreError

log = logging.getLogger(__name__)

_TRIES = 4
_TIMEOUT_S = 1800.0
#: between a file's fetch and the job that says it uses it
_JUST_USED_S = 120.0
_MAX_NAME_BYTES = 200
_PART = ".part"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class _Entry:
    """A fetched object: a folder of its own, with its file and what lay beside it."""

    folder: Path
    used: float
    size_bytes: int


class ObjectFiles:
    """Fetches objects to local files. Every method blocks, and is safe to call from any thread.

    `in_use` tells which files running and waiting jobs need: those are never deleted.
    """

    def __init__(
        self,
        folder: Path,
        budget_bytes: int,
        store_of: Callable[[ObjectUrl], ObjectStore],
        in_use: Callable[[], Set[Path]],
    ) -> None:
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._store_of = store_of
        self._in_use = in_use
        #: guards the two below; the locks in it let an object be fetched once
        self._lock = threading.Lock()
        self._fetching: dict[ObjectUrl, threading.Lock] = {}
        #: bytes that fetches under way are going to need
        self._promised: dict[ObjectUrl, int] = {}

    def fetch(self, url: ObjectUrl, beside: tuple[str, ...] = ()) -> Path:
        """The object as a file of its own name; asks the store whether it has changed.

        `beside` are endings of further objects that belong to it, such as `.yaml`, if they are
        there. Raises `StoreError`, `StorageFailed`.
        """
        with self._lock:
            one_at_a_time = self._fetching.setdefault(url, threading.Lock())
        until = time.monotonic() + _TIMEOUT_S
        if not one_at_a_time.acquire(timeout=_TIMEOUT_S):
            raise StoreError(Reason.UNREACHABLE, f"{url}: not fetched within {_TIMEOUT_S:g} s")
        try:
            store = self._store_of(url)
            info = with_retries(lambda: store.head(url), tries=_TRIES, until=until)
            folder = self._folder / _digest(str(url)) / _digest(info.etag)
            path = folder / _file_name(url)
            if not path.is_file():
                self._fetch(store, url, info, path, beside, until)
            os.utime(folder)
            return path
        finally:
            one_at_a_time.release()

    def _fetch(
        self,
        store: ObjectStore,
        url: ObjectUrl,
        info: ObjectInfo,
        path: Path,
        beside: tuple[str, ...],
        until: float,
    ) -> None:
        self._make_room(url, info.size_bytes)
        began = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for ending in beside:
                self._fetch_beside(store, url, path.with_suffix(ending), until)
            self._download(store, url, path, info.size_bytes, until)
        except OSError as error:
            sentence = f"cannot keep {url} in {self._folder}: {error.strerror or error}"
            raise StorageFailed(sentence) from error
        finally:
            with self._lock:
                self._promised.pop(url, None)
        seconds = time.monotonic() - began
        log.info("fetched %s: %.1f MiB in %.1f s", url, info.size_bytes / _MIB, seconds)

    def _fetch_beside(self, store: ObjectStore, url: ObjectUrl, path: Path, until: float) -> None:
        other = url.sibling(url.name.rpartition(".")[0] + path.suffix)
        try:
            self._download(store, other, path, _MIB, until)
        except StoreError as error:
            # Without the right to list, a store says of what is not there that it is forbidden.
            if error.reason not in (Reason.MISSING, Reason.FORBIDDEN):
                raise

    def _download(
        self, store: ObjectStore, url: ObjectUrl, path: Path, max_bytes: int, until: float
    ) -> None:
        temporary = path.with_name(f".{uuid.uuid4().hex}{_PART}")
        try:
            with_retries(
                lambda: store.download(url, temporary, max_bytes=max_bytes),
                tries=_TRIES,
                until=until,
            )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, url: ObjectUrl, size_bytes: int) -> None:
        """Delete what was used longest ago, as far as it must and may be."""
        if size_bytes > self._budget_bytes:
            sentence = f"{url}: it has {size_bytes} bytes, more than --object-cache-gb allows"
            raise StoreError(Reason.TOO_LARGE, sentence)
        used = self._in_use()
        with self._lock:
            entries = sorted(self._entries(), key=lambda entry: entry.used)
            free = self._budget_bytes - sum(entry.size_bytes for entry in entries)
            free -= sum(self._promised.values()) + size_bytes
            for entry in entries:
                if free >= 0:
                    break
                just_used = time.time() - entry.used < _JUST_USED_S
                if not just_used and not any(path.is_relative_to(entry.folder) for path in used):
                    shutil.rmtree(entry.folder, ignore_errors=True)
                    free += entry.size_bytes
            if free < 0:
                raise StorageFailed(
                    f"no room for {url}: jobs use what is in {self._folder} (--object-cache-gb)"
                )
            self._promised[url] = size_bytes

    def _entries(self) -> Iterator[_Entry]:
        for folder in self._folder.glob("*/*"):
            try:
                size = sum(p.stat().st_size for p in folder.iterdir() if p.suffix != _PART)
                yield _Entry(folder, folder.stat().st_mtime, size)
            except OSError:  # another thread's, gone meanwhile
                continue


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _file_name(url: ObjectUrl) -> str:
    """The object's own name, as far as a file may have it; its ending counts."""
    name = re.sub(r"[^\w.\-+ ()]", "_", url.name)
    return name.encode()[-_MAX_NAME_BYTES:].decode(errors="ignore").lstrip(".") or "object"
