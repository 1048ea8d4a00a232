"""Everything of AI portrait in one server, wired together from its settings."""

import asyncio
import logging
import os
from contextlib import suppress
from functools import partial
from typing import Any, Final

import anyio.to_thread

from sdapi.errors import Missing
from sdapi.portrait.checking import Checker
from sdapi.portrait.creation.drawing.address import Address
from sdapi.portrait.creation.make import make_creator
from sdapi.portrait.faces.processes import FaceProcesses
from sdapi.portrait.faces.providers import Choices
from sdapi.portrait.handlers import Handlers
from sdapi.portrait.job_runner import JobRunner
from sdapi.portrait.meshes import PortraitFaces
from sdapi.portrait.models.folders import ModelFolders
from sdapi.portrait.models.removal import remove_files, remove_model
from sdapi.portrait.photos import MAX_BYTES, MAX_PHOTOS, MAX_PIXELS, PhotoFetcher
from sdapi.portrait.state.records import BASES, QUEUE_OWNER
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.state.store import PortraitStore
from sdapi.portrait.surfaces.queue_services import QueueServices
from sdapi.portrait.surfaces.rest import RestApi
from sdapi.portrait.tools import Tools
from sdapi.portrait.training.make import LateTrainer
from sdapi.portrait.wire.requests import is_user_id
from sdapi.services.container import Services
from sdapi.services.fetching.fetcher import Fetcher
from sdapi.services.training import Training, TrainingService
from sdapi.settings import Settings

_FIRST_SWEEP_S: Final = 600.0
_SWEEP_S: Final = 3600.0
_MOST_PROCESSES: Final = 4
log = logging.getLogger(__name__)


class Portrait:
    """The portrait part of a server; made without importing dlib, OpenCV or torch."""

    def __init__(
        self,
        settings: Settings,
        tools: Tools,
        handlers: Handlers,
        drawn_at: Address | None = None,
        training: TrainingService | None = None,
    ) -> None:
        self._drawn_at = drawn_at
        self._settings = settings
        self._training = training
        self._store = tools.store
        self._handlers = handlers
        self._choices = tools.choices
        self._sweeper: asyncio.Task[None] | None = None
        is_corrected = settings.portrait_wording == "corrected"
        self.processes = tools.processes
        self.faces = PortraitFaces(tools.choices, tools.processes)
        self.checker = Checker(tools.photos, tools.processes)
        self.folders = tools.folders
        self._runner = self._make_runner(is_corrected=is_corrected)
        self.rest = RestApi(
            self._store,
            self.checker,
            self.folders,
            handlers,
            on_job=self._runner.wake if self._runner else _nothing,
            is_corrected=is_corrected,
        )
        self.queue_services = QueueServices(
            self._store, self.checker, handlers, is_corrected=is_corrected
        )

    @classmethod
    def build(
        cls,
        settings: Settings,
        handlers: Handlers | None = None,
        *,
        services: Services | None = None,
        drawn_at: Address | None = None,
    ) -> "Portrait":
        """With the store that the settings name, and what `services` can do.

        `drawn_at` is another server that draws. Raises SettingsError when a face provider that was
        asked for is not there.
        """
        tools = make_tools(settings)
        if handlers is None and services is not None:
            creator = make_creator(settings, services, tools, drawn_at)
            handlers = Handlers(LateTrainer(services, tools), creator)
        training = None if services is None else services.training
        return cls(settings, tools, handlers or Handlers(), drawn_at, training)

    def _make_runner(self, *, is_corrected: bool) -> JobRunner | None:
        trainer = self._handlers.trainer
        if trainer is None:
            return None
        forget = partial(remove_files, self.folders)
        return JobRunner(self._store, trainer, forget, is_corrected=is_corrected)

    async def start(self) -> None:
        """Open the store and begin with what runs by itself; raises StorageFailed."""
        log.info("%s", self._choices.told(self._settings.portrait_providers))
        await self._store.open()
        await check_shared(self._settings, self.folders, self._store)
        await anyio.to_thread.run_sync(self.folders.restore_replaced)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        # A server without devices takes jobs for those that have some.
        if self._runner and self._settings.role != "api":
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

    async def delete_user(self, user_id: str) -> None:
        """Forget a user of the queue's services; raises Missing, StorageFailed.

        A training of theirs ends, as its folder is gone.
        """
        is_id = is_user_id(user_id)
        if not is_id or not await remove_model(self._store, self.folders, QUEUE_OWNER, user_id):
            raise Missing(f"there is no user {user_id[:128]!r}")

    async def status(self) -> dict[str, Any]:
        """What `GET /portrait/status` answers."""
        models = {kind: await self._abilities(is_xl=kind == "xl") for kind in BASES}
        return {
            "providers": self._choices.status(),
            "services": {
                "check": True,
                "train": any(each["train"] for each in models.values()),
                "create": any(each["create"] for each in models.values()),
            },
            "models": models,
            "drawn_at": None if self._drawn_at is None else self._drawn_at.url,
            "trainings": [_progress(each) for each in self._trainings()],
            "limits": {
                "photos": MAX_PHOTOS,
                "photo_bytes": MAX_BYTES,
                "photo_pixels": MAX_PIXELS,
                "keep_uploads_days": self._settings.portrait_keep_uploads_days,
            },
        }

    async def _abilities(self, *, is_xl: bool) -> dict[str, bool]:
        """What can be done with checkpoints of a kind: what there is a checkpoint for."""
        trainer, creator = self._handlers.trainer, self._handlers.creator
        return {
            "train": trainer is not None and await trainer.can_train(is_xl=is_xl),
            "create": creator is not None and await creator.can_create(is_xl=is_xl),
        }

    def _trainings(self) -> list[Training]:
        return self._training.open if self._training is not None else []

    async def _sweep(self) -> None:
        """Delete uploads whose time is over, every hour.

        Not at once: what an old training left may be what the queue's first item goes on from.
        """
        days = self._settings.portrait_keep_uploads_days
        await asyncio.sleep(_FIRST_SWEEP_S)
        while True:
            try:
                # Those of jobs go on, however long no server was up.
                in_use = await self._store.open_models()
                remains = partial(self.folders.delete_remains, in_use=in_use)
                await anyio.to_thread.run_sync(remains)
                await anyio.to_thread.run_sync(self.folders.delete_old_uploads, days)
            except Exception:  # whatever one round meets, the next keeps the promise
                log.exception("old portrait uploads could not be deleted")
            await asyncio.sleep(_SWEEP_S)


def make_tools(settings: Settings) -> Tools:
    """Raises SettingsError when a provider that was asked for is not there."""
    choices = Choices.make(
        settings.models_dir, settings.portrait_providers, settings.setup_models_dir
    )
    return Tools(
        make_store(settings),
        ModelFolders(settings.portrait_dir, settings.lora_dirs[0]),
        PhotoFetcher(Fetcher(settings)),
        FaceProcesses(choices, _process_count(settings)),
        choices,
    )


def make_store(settings: Settings) -> PortraitStore:
    """Where the queue's items are: Redis where `--queue-url` says so, else SQLite."""
    if settings.queue_url is None:
        return SqlitePortraitStore(settings.state_file)
    from sdapi.portrait.state.redis_store import RedisPortraitStore

    return RedisPortraitStore(settings.queue_url)


async def check_shared(settings: Settings, folders: ModelFolders, store: PortraitStore) -> None:
    """Make sure that servers with one state have one folder of models; raises FolderNotShared."""
    # A database in the data directory has the folder beside it.
    if settings.queue_url is not None:
        await folders.check_shared(store)


def _process_count(settings: Settings) -> int:
    half = (os.cpu_count() or 2) // 2
    return settings.portrait_processes or min(max(half, 1), _MOST_PROCESSES)


def _progress(training: Training) -> dict[str, Any]:
    """How far a training is; whose it is, nobody else is told."""
    monitor = training.monitor
    return {"state": training.state, "step": monitor.step, "steps": monitor.steps}


def _nothing() -> None:
    """No runner waits for jobs."""
