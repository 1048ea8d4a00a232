"""All services of one server, made from its settings, and the worker threads behind them."""

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sdapi.engine.control.annotators.annotators import Annotators
from sdapi.engine.control.annotators.hub import fetch
from sdapi.engine.jobs.job import ModelFile
from sdapi.engine.weights.model_file import model_paths
from sdapi.errors import NoCheckpoint, NoDevice, SDAPIError, ShuttingDown
from sdapi.metrics import Metrics
from sdapi.options import Options
from sdapi.security import Credentials
from sdapi.services.catalog.catalog import DEMO_CHECKPOINT, Catalog, Checkpoint
from sdapi.services.catalog.model_files.hashes import HashCache
from sdapi.services.catalog.model_files.safetensors_header import sha256_of_tensors
from sdapi.services.catalog.model_files.weight_file import KnownProblems
from sdapi.services.catalog.networks import NetworkCatalog
from sdapi.services.catalog.object_models import ObjectModels
from sdapi.services.extras import ExtrasService
from sdapi.services.fetching.fetcher import Fetcher
from sdapi.services.generation.pictures.init_images import ImageLoader
from sdapi.services.generation.service import GenerationService
from sdapi.services.interrogation.interrogators import Interrogators
from sdapi.services.interrogation.local_models import LocalModels
from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import TaskRegistry
from sdapi.services.jobs.telling.job_metrics import JobMetrics
from sdapi.services.jobs.telling.previews import Previews
from sdapi.services.jobs.telling.webhooks import Webhooks
from sdapi.services.jobs.training import TrainingLine
from sdapi.services.jobs.training_turns import TrainingTurns
from sdapi.services.jobs.worker import EngineMaker, Worker
from sdapi.services.options.changes import OptionChanges
from sdapi.services.options.server_options import ServerOptions
from sdapi.services.scripts.loaded import LoadedExtension
from sdapi.services.scripts.registry import Scripts
from sdapi.services.storage.storage import Storage
from sdapi.services.system.gauges import server_gauges
from sdapi.services.system.startup import Startup
from sdapi.services.training import TrainingService
from sdapi.settings import Settings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Services:
    """What routes and extensions call. Made without importing torch."""

    settings: Settings
    options: ServerOptions
    catalog: Catalog
    networks: NetworkCatalog
    hashes: HashCache
    tasks: TaskRegistry
    scheduler: Scheduler
    images: ImageLoader
    previews: Previews
    metrics: Metrics
    storage: Storage
    objects: ObjectModels
    credentials: Credentials
    #: makes the engines; tests give a fake
    engines: EngineMaker
    scripts: Scripts
    generation: GenerationService = field(init=False)
    workers: list[Worker] = field(default_factory=list[Worker])
    option_changes: OptionChanges = field(init=False)
    #: found at the start, whether they could be loaded or not
    extensions: tuple[LoadedExtension, ...] = ()
    interrogators: Interrogators = field(init=False)
    extras: ExtrasService = field(init=False)
    training: TrainingService = field(init=False)
    #: networks of ControlNet preprocessors
    annotators: Annotators = field(init=False)
    webhooks: Webhooks = field(init=False)
    startup: Startup = field(default_factory=Startup)
    #: another one after each start, for pages that notice
    app_id: int = field(default_factory=lambda: secrets.randbits(63))
    #: of checkpoints, as far as they show without loading
    known_problems: KnownProblems = field(default_factory=KnownProblems)
    #: why no device can draw, in one sentence; None while one may
    start_failure: str | None = None
    _starter: threading.Thread | None = None
    _training_line: TrainingLine = field(init=False)

    def __post_init__(self) -> None:
        self.generation = GenerationService(self)
        self.interrogators = Interrogators(LocalModels(self.settings).by_name())
        self.extras = ExtrasService(
            self.settings, self.options, self.tasks, self.scheduler, self.images
        )
        self._training_line = TrainingLine(self.settings.queue_limit)
        self.training = TrainingService(self._training_line)
        self.annotators = Annotators(
            self.settings.controlnet_annotators_dir,
            fetch=fetch if self.settings.download_annotators else None,
            kept_maps=self.settings.controlnet_preprocessor_cache_size,
        )
        self.webhooks = Webhooks(self.settings, Fetcher(self.settings), self.scheduler)
        self.metrics.add_gauges(server_gauges(self))
        self.option_changes = OptionChanges(
            self.settings,
            self.options,
            self.catalog,
            self.preload,
            self.generation.check_options,
        )

    @classmethod
    def build(
        cls,
        settings: Settings,
        engines: EngineMaker,
        scripts: Scripts | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> "Services":
        """Read what is on disk and wire everything together; no thread runs yet."""
        metrics = Metrics()
        tasks = TaskRegistry(JobMetrics(metrics))

        def files_in_use() -> frozenset[Path]:
            return model_paths(tasks.open_jobs) | tasks.open_files

        storage = Storage(settings, environ, metrics, files_in_use)
        hashes = HashCache(settings.data_dir)
        catalog = Catalog(settings, hashes)
        options = ServerOptions(_first_options(settings, catalog), settings.options_file)
        tensor_hashes = HashCache(settings.data_dir, "network_hashes", sha256_of_tensors)
        networks = NetworkCatalog(settings, tensor_hashes)
        return cls(
            settings=settings,
            options=options,
            catalog=catalog,
            networks=networks,
            hashes=hashes,
            tasks=tasks,
            scheduler=Scheduler(settings.queue_limit),
            images=ImageLoader(Fetcher(settings), storage),
            previews=Previews(),
            metrics=metrics,
            storage=storage,
            objects=ObjectModels(storage),
            credentials=Credentials(settings),
            engines=engines,
            scripts=scripts or Scripts(()),
        )

    def start(self) -> None:
        """Start the workers; they import torch in their own threads, while the server answers."""
        if self.settings.role == "api":
            self._refuse(NoDevice("this server has the role api: it takes what goes to a queue"))
            return
        self._say_what_draws()
        self._starter = threading.Thread(
            target=self._start_workers, name="sdapi-start", daemon=True
        )
        self._starter.start()

    @property
    def is_ready(self) -> bool:
        """Whether some worker can take jobs."""
        return any(worker.is_ready for worker in self.workers)

    def preload(self, checkpoint: Checkpoint) -> None:
        """Let the first worker load a checkpoint before its next job."""
        try:
            file = ModelFile.of(checkpoint.path, checkpoint.sidecar)
        except OSError:
            return  # gone meanwhile; the next job says so
        for worker in self.workers[:1]:
            worker.request_load(file)

    def reload_checkpoint(self) -> None:
        """Load the configured checkpoint ahead of the next job; raises `NoCheckpoint`."""
        configured = self.options.current.text("sd_model_checkpoint")
        self.preload(self.catalog.default_checkpoint(configured))

    def unload_checkpoint(self) -> None:
        """Let every worker drop its models before its next job, which loads what it needs."""
        for worker in self.workers:
            worker.request_clear()

    async def drain(self) -> None:
        """Refuse new jobs and those that wait, and let those that run finish."""
        self._refuse(ShuttingDown("the server is shutting down"))
        for worker in self.workers:
            worker.stop()
        self.objects.close()  # what waits for a model would be refused when it has it
        while self.tasks.open_count:
            await asyncio.sleep(0.02)
        await self.storage.drain()

    def close(self) -> None:
        """End the threads; running jobs stop within a step."""
        self._refuse(ShuttingDown("the server is shutting down"))
        for worker in self.workers:
            worker.stop()
        self.tasks.cut_short()
        self.objects.close()
        for worker in self.workers:
            worker.join(timeout_s=5)
        self.interrogators.close()
        self.hashes.close()
        self.networks.hashes.close()

    def _refuse(self, error: SDAPIError) -> None:
        for task in self.scheduler.close(error):
            self.tasks.reject(task, error)
        self._training_line.close(error)

    def _start_workers(self) -> None:
        try:
            with self.startup.part("import torch, find devices"):
                names = self.engines.device_names(self.settings)
        except Exception as error:
            log.exception("no device can be used")
            self._fail(error)
            return
        self.workers = [
            Worker(
                name,
                self.scheduler,
                self.tasks,
                TrainingTurns(self._training_line, self.settings.train_share),
                partial(self.engines.make, self.settings, name),
                self._first_checkpoint,
                self._on_worker_failed,
            )
            for name in names
        ]
        for worker in self.workers:
            worker.start()
        self._say_what_is_broken()

    def _on_worker_failed(self, error: Exception) -> None:
        """Let nobody wait for devices when the last of them has failed."""
        if all(worker.failure is not None for worker in self.workers):
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        refusal = _no_device(error)
        self.start_failure = refusal.detail
        self._refuse(refusal)

    def _first_checkpoint(self) -> ModelFile | None:
        """What workers load ahead; None while there is nothing, or nothing is to be loaded."""
        if self.settings.skip_load_model_at_start:
            return None
        configured = self.options.current.text("sd_model_checkpoint")
        try:
            checkpoint = self.catalog.default_checkpoint(configured)
        except NoCheckpoint:
            return None
        if not self.settings.no_hashing:
            self._hash_ahead(checkpoint.path)
        with suppress(OSError):
            return ModelFile.of(checkpoint.path, checkpoint.sidecar)
        return ModelFile(checkpoint.path, checkpoint.sidecar)  # its load tells what is wrong

    def _hash_ahead(self, path: Path) -> None:
        with suppress(OSError):  # what cannot be read shows when it is loaded
            if path.is_file():
                self.hashes.compute(path)

    def _say_what_draws(self) -> None:
        checkpoints = self.catalog.checkpoints
        folder = self.settings.checkpoint_dirs[0]
        if not checkpoints:
            log.warning("no checkpoint yet: put one into %s", folder)
        elif checkpoints[0].path == DEMO_CHECKPOINT:
            log.warning("drawing with the demo checkpoint: %s is empty", folder)

    def _say_what_is_broken(self) -> None:
        """Warn of checkpoints whose beginning or length shows that they cannot be loaded."""
        for checkpoint in self.catalog.checkpoints:
            if problem := self.known_problems.of(checkpoint.path):
                log.warning("the checkpoint %s cannot be used: %s", checkpoint.path, problem)


def _first_options(settings: Settings, catalog: Catalog) -> Options:
    """The options file's, with `--ckpt` as the checkpoint when it is there."""
    options = Options.load(settings.options_file)
    if not settings.ckpt:
        return options
    try:
        checkpoint = catalog.closest_checkpoint(Path(settings.ckpt).name)
    except SDAPIError:
        return options
    return options.overlay({"sd_model_checkpoint": checkpoint.title})


def _no_device(error: Exception) -> NoDevice:
    return NoDevice(f"no device can draw ({type(error).__name__}); the log has the reason")
