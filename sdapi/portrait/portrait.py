"""Everything of AI portrait in one server, wired together from its settings."""

import asyncio
import logging
import os
from contextlib import suppress
from typing import Any, Final

import anyio.to_thread

from sdapi.portrait.checking import Checker
from sdapi.portrait.faces.processes import FaceProcesses
from sdapi.portrait.faces.providers import Choices
from sdapi.portrait.folders import ModelFolders
from sdapi.portrait.handlers import Handlers
from sdapi.portrait.job_runner import JobRunner
from sdapi.portrait.photos import MAX_BYTES, MAX_PHOTOS, MAX_PIXELS, PhotoFetcher
from sdapi.portrait.queue_services import QueueServices
from sdapi.portrait.rest import RestApi
from sdapi.portrait.sqlite_store import SqlitePortraitStore
from sdapi.portrait.store import PortraitStore
from sdapi.services.fetch import Fetcher
from sdapi.settings import Settings

_SWEEP_S: Final = 3600.0
_MOST_PROCESSES: Final = 4
log = logging.getLogger(__name__)


class Portrait:
    """The portrait part of a server; made without importing dlib, OpenCV or torch."""

    def __init__(
        self, settings: Settings, store: PortraitStore, handlers: Handlers | None = None
    ) -> None:
        """Wire it; raises SettingsError when a provider that was asked for is not there."""
        self._settings = settings
        self._store = store
        self._handlers = handlers or Handlers()
        self._choices = Choices.make(settings.models_dir, settings.portrait_providers)
        self._sweeper: asyncio.Task[None] | None = None
        is_corrected = settings.portrait_wording == "corrected"
        self.processes = FaceProcesses(self._choices, _process_count(settings))
        self.checker = Checker(PhotoFetcher(Fetcher(settings)), self.processes)
        self.folders = ModelFolders(settings.portrait_dir)
        trainer = self._handlers.trainer
        self._runner = (
            None if trainer is None else JobRunner(store, trainer, is_corrected=is_corrected)
        )
        self.rest = RestApi(
            store,
            self.checker,
            self.folders,
            self._handlers,
            on_job=self._runner.wake if self._runner else _nothing,
            is_corrected=is_corrected,
        )
        self.queue_services = QueueServices(
            store, self.checker, self._handlers, is_corrected=is_corrected
        )

    @classmethod
    def build(cls, settings: Settings, handlers: Handlers | None = None) -> "Portrait":
        """With the store that the settings name."""
        return cls(settings, make_store(settings), handlers)

    async def start(self) -> None:
        """Open the store and begin with what runs by itself; raises StorageFailed."""
        await self._store.open()
        await self.folders.check_shared(self._store)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        if self._runner:
            self._runner.start()

    async def close(self) -> None:
        """Stop; photos that are being looked at fail."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        if self._runner:
            await self._runner.close()
        await anyio.to_thread.run_sync(self.processes.close)
        await self._store.close()

    def status(self) -> dict[str, Any]:
        """What `GET /portrait/status` answers."""
        return {
            "providers": self._choices.status(),
            "services": {
                "check": True,
                "train": self._handlers.trainer is not None,
                "create": self._handlers.creator is not None,
            },
            "limits": {
                "photos": MAX_PHOTOS,
                "photo_bytes": MAX_BYTES,
                "photo_pixels": MAX_PIXELS,
                "keep_uploads_days": self._settings.portrait_keep_uploads_days,
            },
        }

    async def _sweep(self) -> None:
        """Delete uploads whose time is over, every hour."""
        days = self._settings.portrait_keep_uploads_days
        while True:
            try:
                await anyio.to_thread.run_sync(self.folders.delete_remains)
                await anyio.to_thread.run_sync(self.folders.delete_old_uploads, days)
            except OSError:
                log.exception("old portrait uploads could not be deleted")
            await asyncio.sleep(_SWEEP_S)


def make_store(settings: Settings) -> PortraitStore:
    """Where the queue's items are: Redis where `--queue-url` says so, else SQLite."""
    if settings.queue_url is None:
        return SqlitePortraitStore(settings.state_file)
    from sdapi.portrait.redis_store import RedisPortraitStore

    return RedisPortraitStore(settings.queue_url)


def _process_count(settings: Settings) -> int:
    half = (os.cpu_count() or 2) // 2
    return settings.portrait_processes or min(max(half, 1), _MOST_PROCESSES)


def _nothing() -> None:
    """No runner waits for jobs."""
