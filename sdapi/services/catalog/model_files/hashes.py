"""sha256 of model files, computed once and kept on disk by path, size and modification time."""

import asyncio
import hashlib
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import anyio.to_thread

from sdapi.services.storage.local_disk import replace_file

log = logging.getLogger(__name__)

#: how long an answer waits for a hash that it shows
HASH_WAIT_S = 5.0
_FOLDER = "cache"
#: files whose hashes are remembered; those of the first to be known are forgotten
_MOST = 10_000


def sha256_of_file(path: Path) -> str:
    """The sha256 of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashCache:
    """Known hashes of files. Safe to use from any thread."""

    def __init__(
        self,
        data_dir: Path,
        name: str = "hashes",
        digest: Callable[[Path], str] = sha256_of_file,
    ) -> None:
        self._path = data_dir / _FOLDER / f"{name}.json"
        self._digest = digest
        #: guards `_known` and `_running`
        self._lock = threading.Lock()
        self._known = _read(self._path)
        self._running: dict[str, Future[str]] = {}
        # One at a time: hashing is bound by the disk, and loading wants it too.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sdapi-hash")

    def get(self, path: Path) -> str | None:
        """The hash of a file as it is now, None while unknown."""
        try:
            stamp = _stamp(path)
        except OSError:
            return None
        with self._lock:
            entry = self._known.get(str(path))
        return entry["sha256"] if entry and entry["stamp"] == stamp else None

    def compute(self, path: Path) -> "Future[str]":
        """Begin to hash a file, or join those who wait for it."""
        with self._lock:
            running = self._running.get(str(path))
            if running is None or running.done():
                running = self._running[str(path)] = self._pool.submit(self._hash, path)
            return running

    async def wait(self, path: Path, timeout_s: float) -> str | None:
        """The hash of a file within a time limit; it goes on being computed after that."""
        if (known := await anyio.to_thread.run_sync(self.get, path)) is not None:
            return known
        future = asyncio.wrap_future(self.compute(path))
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout_s)
        except (TimeoutError, OSError):
            return None

    def close(self) -> None:
        """Give up what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _hash(self, path: Path) -> str:
        try:
            if (known := self.get(path)) is not None:
                return known
            stamp = _stamp(path)
            sha256 = self._digest(path)
            self._remember(path, {"stamp": stamp, "sha256": sha256})
            return sha256
        finally:
            with self._lock:
                self._running.pop(str(path), None)

    def _remember(self, path: Path, entry: dict[str, Any]) -> None:
        with self._lock:
            self._known.pop(str(path), None)
            self._known[str(path)] = entry
            for oldest in list(islice(self._known, max(len(self._known) - _MOST, 0))):
                del self._known[oldest]
            text = json.dumps(self._known, indent=1)
        self._write(text)

    def _write(self, text: str) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, text.encode())
        except OSError as error:
            log.warning("hashes cannot be kept in %s: %s", self._path, error)


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        key: entry
        for key, entry in content.items()
        if isinstance(entry, dict) and {"stamp", "sha256"} <= entry.keys()
    }
