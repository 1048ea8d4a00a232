"""A trainer whose engine learns nothing and draws what a test says; face analysis is real."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from sdapi.engine.jobs.job import GeneratedImage, Job, Result
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.training.job import TrainingJob, TrainingMonitor, TrainingResult, checkpoint_path
from sdapi.portrait.faces.processes import FaceProcesses
from sdapi.portrait.faces.providers import Choices
from sdapi.portrait.handlers import Trained
from sdapi.portrait.models.folders import ModelFolders
from sdapi.portrait.photos import PhotoFetcher
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.tools import Tools
from sdapi.portrait.training.make import LateTrainer
from sdapi.portrait.wire.requests import TrainRequest
from sdapi.services.container import Services
from sdapi.services.fetching.fetcher import Fetcher
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines, FakeTraining
from tests.portraits.people import FOLDER
from tests.servers import wait_ready


class WritingTraining(FakeTraining):
    """A training that writes a LoRA of one number, its step, at every checkpoint."""

    def update(self, *, while_drawing: bool = False) -> None:
        super().update(while_drawing=while_drawing)
        step, job = self.monitor.step, self.job
        if step % job.checkpoint_every == 0 or self.is_finished:
            path = checkpoint_path(job.folder, step)
            save_file({"a.alpha": np.array(step, np.float16)}, path, {"ss_steps": str(step)})
            if self.monitor.on_checkpoint is not None:
                self.monitor.on_checkpoint(step, path)

    def result(self) -> TrainingResult:
        every, last = self.job.checkpoint_every, self.job.steps
        steps = dict.fromkeys((*range(every, last + 1, every), last))
        return TrainingResult(tuple((s, checkpoint_path(self.job.folder, s)) for s in steps), 0.1)


@dataclass
class PortraitEngine(FakeEngine):
    """Draws a person from the test pictures: a template, or what a step's weights would draw."""

    #: the name of a picture; None is asked for a template
    draws: Callable[[int | None], str] = lambda step: "person_1"

    def run(self, job: Job, monitor: Monitor) -> Result:
        self.jobs.append(job)
        if (error := self.failure(job)) is not None:
            raise error
        files = list(job.networks.loras.values())
        step = int(files[0].path.stem.rpartition("-")[2]) if files else None
        image = Image.open(FOLDER / f"{self.draws(step)}.jpg").convert("RGB")
        return Result((GeneratedImage(0, image.resize((job.width, job.height))),), {})

    def begin_training(self, job: TrainingJob, monitor: TrainingMonitor) -> WritingTraining:
        training = WritingTraining(job, monitor, self.update_s, self.training_failure)
        self.trainings.append(training)
        return training


@dataclass
class TrainerBench:
    """A trainer and what it works with."""

    services: Services
    tools: Tools
    trainer: LateTrainer
    engine: PortraitEngine = field(default_factory=PortraitEngine)

    async def train(self, urls: list[str], **changes: Any) -> Trained:
        """What whoever asked has written down."""
        trained = await self.train_unsettled(urls, **changes)
        await trained.settle()
        return trained

    async def train_unsettled(
        self, urls: list[str], *, owner: str = "queue", model_id: str = "anna", **changes: Any
    ) -> Trained:
        values = {"max_train_steps": 8, "steps_between_evaluations": 4} | changes
        return await self.trainer.train(owner, model_id, TrainRequest(tuple(urls), **values))

    @property
    def folder(self) -> Path:
        return self.tools.folders.of("queue", "anna")


@asynccontextmanager
async def trainer_bench(
    data_dir: Path, engine: PortraitEngine, processes: FaceProcesses, **changes: Any
) -> AsyncGenerator[TrainerBench]:
    """A trainer while the block runs."""
    settings = Settings(data_dir=data_dir, allow_private_urls=True, no_hashing=True, **changes)
    services = Services.build(settings, FakeEngines(engine))
    choices = Choices.make(settings.models_dir, {})
    tools = Tools(
        SqlitePortraitStore(settings.state_file),
        ModelFolders(settings.portrait_dir, settings.lora_dirs[0]),
        PhotoFetcher(Fetcher(settings)),
        processes,
        choices,
    )
    services.start()
    try:
        await asyncio.to_thread(wait_ready, lambda: services.is_ready)
        yield TrainerBench(services, tools, LateTrainer(services, tools), engine)
    finally:
        await asyncio.to_thread(services.close)
