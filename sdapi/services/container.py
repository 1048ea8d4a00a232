"""All services of one server, made from its settings, and the worker threads behind them."""

import asyncio
import logging
import threading
from dataclasses import dataclass, field
from functools import partial

from sdapi.engine.job import ModelFile
from sdapi.errors import NoDevice, SDAPIError, ShuttingDown
from sdapi.options import Options
from sdapi.security import Credentials
from sdapi.services.catalog.catalog import DEMO_CHECKPOINT, Catalog
from sdapi.services.catalog.hashes import HashCache
from sdapi.services.fetch import Fetcher
from sdapi.services.generation.init_images import ImageLoader
from sdapi.services.generation.service import GenerationService
from sdapi.services.jobs.previews import Previews
from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import TaskRegistry
from sdapi.services.jobs.worker import EngineMaker, Worker
from sdapi.services.server_options import ServerOptions
from sdapi.settings import Settings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Services:
    """What routes and extensions call. Made without importing torch."""

    settings: Settings
    options: ServerOptions
    catalog: Catalog
    hashes: HashCache
    tasks: TaskRegistry
    scheduler: Scheduler
    generation: GenerationService
    images: ImageLoader
    previews: Previews
    credentials: Credentials
    #: makes the engines; tests give a fake
    engines: EngineMaker
    workers: list[Worker] = field(default_factory=list[Worker])
    _starter: threading.Thread | None = None

    @classmethod
    def build(cls, settings: Settings, engines: EngineMaker) -> "Services":
        """Read what is on disk and wire everything together; no thread runs yet."""
        options = ServerOptions(Options.load(settings.options_file))
        hashes = HashCache(settings.data_dir)
        catalog = Catalog(settings, hashes)
        tasks, scheduler = TaskRegistry(), Scheduler(settings.queue_limit)
        images = ImageLoader(Fetcher(settings))
        generation = GenerationService(settings, options, catalog, hashes, tasks, scheduler, images)
        return cls(
            settings=settings,
            options=options,
            catalog=catalog,
            hashes=hashes,
            tasks=tasks,
            scheduler=scheduler,
            generation=generation,
            images=images,
            previews=Previews(),
            credentials=Credentials(settings),
            engines=engines,
        )

    def start(self) -> None:
        """Start the workers; they import torch in their own threads, while the server answers."""
        self._say_what_draws()
        self._starter = threading.Thread(
            target=self._start_workers, name="sdapi-start", daemon=True
        )
        self._starter.start()

    @property
    def is_ready(self) -> bool:
        """Whether some worker can take jobs."""
        return any(worker.is_ready for worker in self.workers)

    async def drain(self) -> None:
        """Refuse new jobs and those that wait, and let those that run finish."""
        self._refuse(ShuttingDown("the server is shutting down"))
        for worker in self.workers:
            worker.stop()
        while self.tasks.open_count:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """End the threads; running jobs stop within a step."""
        self._refuse(ShuttingDown("the server is shutting down"))
        for worker in self.workers:
            worker.stop()
        self.tasks.interrupt_running()
        for worker in self.workers:
            worker.join(timeout_s=5)
        self.hashes.close()

    def _refuse(self, error: SDAPIError) -> None:
        for task in self.scheduler.close(error):
            self.tasks.reject(task, error)

    def _start_workers(self) -> None:
        try:
            names = self.engines.device_names(self.settings)
        except Exception as error:
            log.exception("no device can be used")
            self._refuse(_no_device(error))
            return
        self.workers = [
            Worker(
                name,
                self.scheduler,
                self.tasks,
                partial(self.engines.make, self.settings, name),
                self._first_checkpoint,
                self._on_worker_failed,
            )
            for name in names
        ]
        for worker in self.workers:
            worker.start()

    def _on_worker_failed(self, error: Exception) -> None:
        """Let nobody wait for devices when the last of them has failed."""
        if all(worker.failure is not None for worker in self.workers):
            self._refuse(_no_device(error))

    def _first_checkpoint(self) -> ModelFile | None:
        if self.settings.skip_load_model_at_start:
            return None
        try:
            configured = self.options.current.text("sd_model_checkpoint")
            checkpoint = self.catalog.default_checkpoint(configured)
            return ModelFile.of(checkpoint.path, checkpoint.sidecar)
        except (SDAPIError, OSError):
            return None

    def _say_what_draws(self) -> None:
        checkpoints = self.catalog.checkpoints
        folder = self.settings.checkpoint_dirs[0]
        if not checkpoints:
            log.warning("no checkpoint yet: put one into %s", folder)
        elif checkpoints[0].path == DEMO_CHECKPOINT:
            log.warning("drawing with the demo checkpoint: %s is empty", folder)


def _no_device(error: Exception) -> NoDevice:
    return NoDevice(f"no device can draw ({type(error).__name__}); the log has the reason")
