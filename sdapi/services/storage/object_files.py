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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sdapi.errors import StorageFailed
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.retrying import with_retries
from sdapi.services.storage.stores.store import (
    ObjectInfo,
    ObjectStore,
    Reason,
    StoreError,
    never,
)

log = logging.getLogger(__name__)

_TRIES = 4
_TIMEOUT_S, _ASK_TIMEOUT_S = 1800.0, 30.0
#: between a file's fetch and the request that says it uses it
_JUST_USED_S = 120.0
#: nobody writes any more to a part that has not grown for so long
_ABANDONED_S = 600.0
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

    `in_use` tells which files requests and jobs need: those are never deleted.
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
        #: guards what is under way
        self._lock = threading.Lock()
        #: bytes that fetches under way are going to need, by the file that they write
        self._promised: dict[Path, int] = {}

    def find(self, url: ObjectUrl) -> Path | None:
        """An object's file, if the object as the store has it now is here. Raises `StoreError`."""
        return self._found(self._path(url, self._info(url)))

    def fetch(
        self,
        url: ObjectUrl,
        beside: tuple[str, ...] = (),
        is_stopped: Callable[[], bool] = never,
    ) -> Path:
        """The object as a file of its own name; asks the store whether it has changed.

        `beside` are endings of further objects that belong to it, such as `.yaml`, if they are
        there. Raises `StoreError`, `StorageFailed`, or `TransferStopped`.
        """
        info = self._info(url)
        path = self._path(url, info)
        if (found := self._found(path)) is None:
            self._fetch(_Fetch(self._store_of(url), url, is_stopped), info, path, beside)
            found = path
        return found

    def sweep(self) -> None:
        """Delete what fetches have left that ended with their process."""
        for part in self._folder.glob(f"*/*/.*{_PART}"):
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _ABANDONED_S:
                    part.unlink()

    def _info(self, url: ObjectUrl) -> ObjectInfo:
        store, until = self._store_of(url), time.monotonic() + _ASK_TIMEOUT_S
        return with_retries(lambda: store.head(url), tries=_TRIES, until=until)

    def _path(self, url: ObjectUrl, info: ObjectInfo) -> Path:
        return self._folder / _digest(str(url)) / _digest(info.etag) / _file_name(url)

    def _found(self, path: Path) -> Path | None:
        try:
            os.utime(path.parent)
        except FileNotFoundError:
            return None
        return path if path.is_file() else None

    def _fetch(
        self, fetch: "_Fetch", info: ObjectInfo, path: Path, beside: tuple[str, ...]
    ) -> None:
        temporary = _temporary(path)
        self._make_room(fetch.url, info.size_bytes, temporary)
        began = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for ending in beside:
                fetch.write_beside(path.with_suffix(ending))
            fetch.write(fetch.url, path, temporary, info.size_bytes)
            os.utime(path.parent)
        except OSError as error:
            sentence = f"cannot keep {fetch.url} in {self._folder}: {error.strerror or error}"
            raise StorageFailed(sentence) from error
        finally:
            with self._lock:
                self._promised.pop(temporary, None)
        seconds = time.monotonic() - began
        log.info("fetched %s: %.1f MiB in %.1f s", fetch.url, info.size_bytes / _MIB, seconds)

    def _make_room(self, url: ObjectUrl, size_bytes: int, temporary: Path) -> None:
        """Delete what was used longest ago, as far as it must and may be."""
        if size_bytes > self._budget_bytes:
            sentence = f"{url}: it has {size_bytes} bytes, more than --object-cache-gb allows"
            raise StoreError(Reason.TOO_LARGE, sentence)
        self.sweep()
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
            self._promised[temporary] = size_bytes

    def _entries(self) -> Iterator[_Entry]:
        """What is there; files that are being written count as what they are going to be."""
        fetching = {part.parent for part in self._promised}
        for folder in self._folder.glob("*/*"):
            try:
                files = [path for path in folder.iterdir() if path not in self._promised]
                size = sum(path.stat().st_size for path in files)
                is_fetched = folder in fetching or any(path.suffix == _PART for path in files)
                used = time.time() if is_fetched else folder.stat().st_mtime
                yield _Entry(folder, used, size)
            except OSError:  # another thread's, gone meanwhile
                continue


@dataclass(frozen=True, slots=True)
class _Fetch:
    """One object on its way to its file."""

    store: ObjectStore
    url: ObjectUrl
    is_stopped: Callable[[], bool]
    until: float = field(default_factory=lambda: time.monotonic() + _TIMEOUT_S)

    def write(self, url: ObjectUrl, path: Path, temporary: Path, max_bytes: int) -> None:
        """Write an object to a file, whole or not at all."""

        def download() -> None:
            self.store.download(url, temporary, max_bytes=max_bytes, is_stopped=self._must_stop)

        try:
            with_retries(download, tries=_TRIES, until=self.until, wait=self._pause)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def write_beside(self, path: Path) -> None:
        """Write what belongs to the object under another ending, if it is there."""
        other = self.url.sibling(self.url.name.rpartition(".")[0] + path.suffix)
        try:
            self.write(other, path, _temporary(path), _MIB)
        except StoreError as error:
            # Without the right to list, a store says of what is not there that it is forbidden.
            if error.reason not in (Reason.MISSING, Reason.FORBIDDEN):
                raise

    def _must_stop(self) -> bool:
        if time.monotonic() > self.until:
            sentence = f"{self.url}: not fetched within {_TIMEOUT_S:g} s"
            raise StoreError(Reason.UNREACHABLE, sentence)
        return self.is_stopped()

    def _pause(self, seconds: float) -> bool:
        time.sleep(seconds)
        return self.is_stopped()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}{_PART}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _file_name(url: ObjectUrl) -> str:
    """The object's own name, as far as a file may have it; its ending counts."""
    name = re.sub(r"[^\w.\-+ ()]", "_", url.name)
    return name.encode()[-_MAX_NAME_BYTES:].decode(errors="ignore").lstrip(".") or "object"
