"""What everything that saves or fetches files calls, wherever the files are."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio.to_thread

from sdapi.errors import OutboxFull, StorageFailed, StoreUnavailable
from sdapi.metrics import Gauge, Metrics
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.client_errors import as_client_error
from sdapi.services.storage.delivery.attempt import Attempt
from sdapi.services.storage.delivery.names import Names
from sdapi.services.storage.delivery.outbox import Outbox, OutboxFigures
from sdapi.services.storage.delivery.renumbering import Renumbering
from sdapi.services.storage.delivery.spool import Spool
from sdapi.services.storage.delivery.upload import Upload
from sdapi.services.storage.delivery.uploads import Running, Uploads
from sdapi.services.storage.leftovers import Leftovers
from sdapi.services.storage.local_disk import storage_errors
from sdapi.services.storage.new_files import (
    NewFile,
    remove_files,
    sync,
    sync_folders,
    write_all_or_none,
)
from sdapi.services.storage.numbering import Numbering
from sdapi.services.storage.object_files import ObjectFiles
from sdapi.services.storage.places import Place, Places
from sdapi.services.storage.retrying import with_retries
from sdapi.services.storage.stores.by_url import Stores
from sdapi.services.storage.stores.store import ObjectStore, StoreError
from sdapi.services.unbroken import unbroken
from sdapi.settings import Settings

log = logging.getLogger(__name__)

_READ_TRIES = 4
_OUTBOX_MAX_FILES = 100_000
#: between looks for what crashes have left
_SWEEP_S = 600.0


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file that somebody has written, to be uploaded if its folder stands for a prefix."""

    path: Path
    #: whether its name may have been used before
    replaces: bool = False
    #: how it is called anew where the store has another object of its name
    numbering: Numbering | None = None
    #: the picture that it lies beside and shares its name with
    beside: Path | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """Where files are, for the caller."""

    urls: tuple[str, ...] = ()
    #: links that anyone may read them with, if the server makes such
    signed: tuple[str, ...] = ()
    #: why some are not in the store yet; empty when all are
    pending: str = ""
    #: what else the caller should know
    warnings: tuple[str, ...] = ()


class Storage:
    """Local folders, mounts and object stores. Made without asking any of them."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        metrics: Metrics,
        in_use: Callable[[], Set[Path]] = frozenset[Path],
    ) -> None:
        self.settings = settings
        self.places = Places(settings)
        self._leftovers = Leftovers()
        self._stores = Stores(environ)
        self._outbox = Outbox(settings.outbox_dir / "uploads.db")
        self._spool = Spool(settings.outbox_dir / "files")
        self._names = Names(lambda prefix: self._stores.store(prefix).names(prefix))
        renumbering = Renumbering(self._outbox, self._names)
        attempt = Attempt(self._outbox, self._stores.store, renumbering, metrics)
        self._uploads = Uploads(self._outbox, attempt, metrics, timeout_s=settings.upload_timeout_s)
        #: fetched checkpoints and their kin; `in_use` tells which of them jobs need
        self.files = ObjectFiles(
            settings.data_dir / "cache" / "objects",
            settings.object_cache_bytes,
            self._store_of,
            in_use,
        )
        self._sweeper: asyncio.Task[None] | None = None
        metrics.add_gauges(self._gauges())

    def start(self) -> None:
        """Begin to deliver what an earlier run has left; on the event loop."""
        self._uploads.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="sweeping")

    async def _sweep(self) -> None:
        """Now and then clean up what a crash has left of files that nobody was told of."""
        while True:
            try:
                await anyio.to_thread.run_sync(self._sweep_once)
            except (sqlite3.Error, OSError) as problem:
                log.warning("what a crash has left cannot be swept: %s", problem)
            await asyncio.sleep(_SWEEP_S)

    def _sweep_once(self) -> None:
        if self._outbox.exists:
            self._spool.sweep(self._outbox.paths())
        self.files.sweep()

    async def drain(self) -> None:
        """Wait for uploads that are under way."""
        await self._uploads.drain()

    async def close(self) -> None:
        """Stop; what is not uploaded stays recorded."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._uploads.close()
        self._outbox.close()

    def place(self, save_dir: str, *, field: str = "save_dir") -> Place:
        """Where a request's files are to go. Blocks.

        Raises `PathNotAllowed`, `BadRequest`, or `OutboxFull` when too much waits already.
        """
        place = self.places.of_save_dir(save_dir, field=field)
        if place.remote is not None:
            self._check_outbox_room()
        return place

    def check_room(self, folders: Iterable[Path]) -> None:
        """Raise `OutboxFull` when files of these folders would have to wait behind too many."""
        if any(self.places.remote_of(folder) is not None for folder in folders):
            self._check_outbox_room()

    async def write(self, place: Place, files: Sequence[NewFile]) -> Stored:
        """Write a request's files, all or none, and upload them where the place says so.

        Raises `StorageFailed`. A store that does not take them is no error: see `Stored.pending`.
        """
        if not files:  # a script that had nothing to draw
            return Stored()
        paths = [self._path(place, file.name) for file in files]
        await anyio.to_thread.run_sync(self._leftovers.clear, {path.parent for path in paths})
        remote = place.remote
        sizes = await write_all_or_none(
            list(zip(paths, files, strict=True)), place.spelled, durably=remote is not None
        )
        urls = tuple(f"{place.spelled}/{file.name}" for file in files)
        if remote is None:
            return Stored(urls)
        keeps = place.folder is not None and not self.settings.drop_uploaded
        uploads = [
            Upload(path, remote.below(file.name), size, replaces=True, keeps_file=keeps)
            for path, file, size in zip(paths, files, sizes, strict=True)
        ]
        running = await unbroken(self._begun(uploads))
        pending = await self._uploads.wait(running)
        signed, warnings = await self._signed([u.url for u in uploads], pending)
        return Stored(urls, signed, pending, warnings)

    async def _begun(self, uploads: Sequence[Upload]) -> list[Running]:
        """Begin to upload files that nobody knows of yet; those that cannot be recorded go."""
        try:
            return await self._uploads.begin([[upload] for upload in uploads])
        except StorageFailed:
            await anyio.to_thread.run_sync(remove_files, [upload.path for upload in uploads])
            raise

    async def deliver(self, saved: Sequence[SavedFile]) -> str:
        """Upload files that are written already, as far as their folders stand for a prefix.

        Returns why some are pending, or nothing. Raises `StorageFailed`.
        """
        if not saved:
            return ""
        return await self._uploads.wait(await unbroken(self._begun_saved(saved)))

    async def _begun_saved(self, saved: Sequence[SavedFile]) -> list[Running]:
        groups = await anyio.to_thread.run_sync(self._prepared, saved)
        return await self._uploads.begin(groups) if groups else []

    def _prepared(self, saved: Sequence[SavedFile]) -> list[list[Upload]]:
        """What there is to upload of these files, each of them safely on disk.

        Each picture is in a group with what lies beside it.
        """
        groups: dict[Path, list[Upload]] = {}
        for each in saved:
            if (remote := self.places.remote_of(each.path)) is None:
                continue
            if (upload := self._durable(each, remote)) is not None:
                groups.setdefault(each.beside or each.path, []).append(upload)
                self._names.add(remote)
        with storage_errors("to a mount's folder"):
            sync_folders(upload.path for group in groups.values() for upload in group)
        return list(groups.values())

    def _durable(self, saved: SavedFile, remote: ObjectUrl) -> Upload | None:
        """A file that would survive a power cut; None where it has been delivered already."""
        keeps = not self.settings.drop_uploaded
        try:
            with storage_errors(saved.path.parent):
                sync(saved.path)
                size = saved.path.stat().st_size
        except StorageFailed as error:
            # Another request wrote the same file and has recorded, uploaded and dropped it since.
            if keeps or not isinstance(error.__cause__, FileNotFoundError):
                raise
            return None
        return Upload(saved.path, remote, size, saved.replaces, keeps, saved.numbering)

    async def read(self, url: str, *, field: str, max_bytes: int, timeout_s: float) -> bytes:
        """The bytes of an object that a caller names.

        Raises `PathNotAllowed`, `BadRequest`, `BadUrl` for what is not there or too large,
        `StoreUnavailable` or `StoreRefused`.
        """
        found, _ = self.places.allowed(url, field=field)

        def work() -> bytes:
            store = self._store_of(found)
            read = partial(store.read, found, max_bytes=max_bytes)
            return with_retries(read, tries=_READ_TRIES, until=time.monotonic() + timeout_s)

        try:
            with anyio.fail_after(timeout_s):
                return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        except TimeoutError as error:
            raise StoreUnavailable(f"{field} {found}: not read within {timeout_s:g} s") from error
        except StoreError as error:
            raise as_client_error(error, field) from error

    def names_beside(self, directory: Path) -> Iterable[str]:
        """The names that a folder's prefix has, as far as they are known. Blocks.

        So that running numbers go on where another machine, or an emptied folder, had left off.
        """
        prefix = self.places.remote_of(directory.resolve())
        return () if prefix is None else self._names.known(prefix)

    async def state(self) -> dict[str, object]:
        """The outbox as `/readyz` shows it; nothing on a server without object stores."""
        uses_stores = self.settings.allow_oss or any(m.oss for m in self.settings.mounts)
        if not uses_stores and not self._outbox.exists:
            return {}
        figures = await anyio.to_thread.run_sync(self._figures)
        return {
            "pending": figures.pending,
            "pending_bytes": figures.pending_bytes,
            "oldest_age_s": round(figures.oldest_age_s, 1),
            "refused": figures.refused,
            "last_error": self._uploads.last_error,
        }

    def _store_of(self, url: ObjectUrl) -> ObjectStore:
        """The store that an allowed URL is read from."""
        _, mount = self.places.allowed(str(url), field="url")
        if mount is not None and not self.places.uploads(mount):
            return self._stores.mounted(mount)
        return self._stores.store(url)

    def _path(self, place: Place, name: str) -> Path:
        if place.folder is not None:
            return place.folder / name
        return self._spool.new(Path(name).suffix)

    async def _signed(
        self, urls: Sequence[ObjectUrl], pending: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Links if the server makes such, and why there are none."""
        seconds = self.settings.sign_urls_s
        if not seconds:
            return (), ()
        if pending:  # nobody can read yet what they would name
            return (), ("no links were made: the upload is pending",)

        def sign() -> tuple[str, ...]:
            return tuple(self._stores.store(url).signed(url, seconds) for url in urls)

        try:
            return await anyio.to_thread.run_sync(sign), ()
        except StoreError as error:
            log.warning("no links were made: %s", error)
            return (), (f"no links were made: {error}",)

    def _check_outbox_room(self) -> None:
        figures = self._figures()
        limit = self.settings.outbox_bytes
        if figures.pending >= _OUTBOX_MAX_FILES or figures.pending_bytes >= limit:
            raise OutboxFull(
                f"{figures.pending} files of {figures.pending_bytes} bytes wait for the object "
                f"store already; the outbox takes {_OUTBOX_MAX_FILES} files and {limit} bytes "
                f"(--outbox-gb). The store's last answer: {self._uploads.last_error or 'none'}"
            )

    def _figures(self) -> OutboxFigures:
        if not self._outbox.exists:
            return OutboxFigures()
        try:
            return self._outbox.figures()
        except sqlite3.Error as error:
            log.warning("the outbox cannot be read: %s", error)
            return OutboxFigures()

    def _gauges(self) -> list[Gauge]:
        def gauge(name: str, help: str, field: str) -> Gauge:
            return Gauge(name, help, lambda: {"": float(getattr(self._figures(), field))})

        return [
            gauge("sdapi_outbox_files", "Files that wait for their upload", "pending"),
            gauge("sdapi_outbox_bytes", "Their size", "pending_bytes"),
            gauge("sdapi_outbox_oldest_age_seconds", "How long the first waits", "oldest_age_s"),
            gauge("sdapi_outbox_refused_files", "Files the store will never take", "refused"),
        ]
