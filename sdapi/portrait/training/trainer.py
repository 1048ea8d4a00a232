"""Trains models of people and scenes. Contract: portrait-pipeline 2; errors: portrait-api 2.10."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import numpy as np
from PIL import Image

from sdapi.engine.model_file import ModelFile
from sdapi.errors import NoDevice, QueueFull, SDAPIError, ShuttingDown
from sdapi.portrait import faults
from sdapi.portrait.artefacts import FACE_ID, LORA, ModelMeta
from sdapi.portrait.base.checkpoints import BaseModel, BaseModels
from sdapi.portrait.faces.processes import FaceTaskFailed
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.folders import LORA_MARK
from sdapi.portrait.handlers import Trained
from sdapi.portrait.records import QUEUE_OWNER
from sdapi.portrait.requests import TrainRequest
from sdapi.portrait.tools import Tools
from sdapi.portrait.training import ranking
from sdapi.portrait.training.merging import merge_loras
from sdapi.portrait.training.plans import Plan, caption_of, plan_for
from sdapi.portrait.training.preparation import Preparation
from sdapi.portrait.training.ranking import Trial
from sdapi.portrait.training.study import recognise, to_jpeg
from sdapi.portrait.training.validation import Template, Validator
from sdapi.portrait.training.work_folder import Prepared, WorkFolder
from sdapi.services.container import Services
from sdapi.services.training import (
    Training,
    TrainingJob,
    TrainingPicture,
    TrainingResult,
    checkpoint_path,
)

#: trainings whose photos are looked at at the same time
_PREPARED_AT_ONCE: Final = 2
#: between signs that a training still waits or runs
_TOUCH_S: Final = 600.0
_SEED: Final = 1
#: where drawn templates of trials are kept, below the portraits' folder
_TEMPLATES: Final = "templates"
#: errors that pass: the request is to be made again
_PASSING: Final = (NoDevice, QueueFull, ShuttingDown)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Order:
    """One training with what belongs to it."""

    owner: str
    model_id: str
    request: TrainRequest
    base: BaseModel
    plan: Plan
    work: WorkFolder

    @property
    def caption(self) -> str:
        words = self.base.words
        return caption_of(words.trigger, self.request.sex, words.male, words.female)

    @property
    def trigger(self) -> str:
        return self.request.scene_prompts[0] if self.request.is_scene else self.base.words.trigger


class PortraitTrainer:
    """Trains with this process's workers; `make.LateTrainer` makes it one of `handlers`."""

    def __init__(self, services: Services, tools: Tools, bases: BaseModels) -> None:
        self._services = services
        self._tools = tools
        self._bases = bases
        self._preparing = anyio.Semaphore(_PREPARED_AT_ONCE)
        #: one training of a model at a time; the next replaces what the first has made
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def train(self, owner: str, model_id: str, request: TrainRequest) -> Trained:
        base = self._bases.find("xl" if request.is_xl else "sd15")
        if base is None:
            raise PortraitError(faults.MODEL_UNKNOWN)
        work = WorkFolder(self._tools.folders.work(owner, model_id))
        order = _Order(owner, model_id, request, base, plan_for(request, base), work)
        async with self._locks[owner, model_id]:
            try:
                trained = await self._train(order)
            except asyncio.CancelledError:
                # A request of the queue that is gone does not come back; a job's model is deleted
                # by whoever deletes the job, and a server that stops is to go on later.
                if owner == QUEUE_OWNER and not self._services.training.is_closed:
                    await asyncio.shield(anyio.to_thread.run_sync(work.delete))
                raise
        log.info("portrait model %s is trained", model_id)
        return trained

    async def _train(self, order: _Order) -> Trained:
        try:
            prepared = await self._prepared(order)
            async with self._alive(order.work):
                trials = await self._learn(order, prepared)
                meta = await self._choose(order, prepared, trials)
            await self._publish(order, meta)
        except PortraitError:
            await anyio.to_thread.run_sync(order.work.delete)
            raise
        return Trained(meta.to_json(), list(prepared.states))

    async def _prepared(self, order: _Order) -> Prepared:
        """The photos looked at; those of a run that was interrupted are not fetched again."""
        work, request = order.work, order.request
        asked = {**request.to_json(), "checkpoint": _identity(order.base)}
        try:
            await anyio.to_thread.run_sync(work.open, asked)
            prepared = await anyio.to_thread.run_sync(work.prepared)
            if prepared is not None:
                return prepared
            await anyio.to_thread.run_sync(work.restart)
            async with self._preparing:
                preparation = Preparation(
                    self._tools.photos, self._tools.processes, work, order.plan.crop
                )
                if request.is_scene:
                    prepared = await preparation.scene(request.urls, request.scene_prompts)
                else:
                    prepared = await preparation.person(request.urls, order.caption)
            await anyio.to_thread.run_sync(work.keep, prepared)
        except OSError as error:
            log.warning("portrait training: the folder cannot be written: %s", error)
            raise PortraitError(faults.FOLDER_FAILED) from error
        return prepared

    async def _learn(self, order: _Order, prepared: Prepared) -> list[Trial]:
        """Train, and draw trials meanwhile; raises PortraitError, and what passes."""
        loop, written = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Path] | None]()

        def on_checkpoint(step: int, path: Path) -> None:
            with suppress(RuntimeError):  # the loop may have ended before the worker
                loop.call_soon_threadsafe(written.put_nowait, (step, path))

        trials = asyncio.ensure_future(self._try_out(order, prepared, written))
        try:
            training = self._services.training.submit(self._job(order, prepared), on_checkpoint)
            result = await self._result(training)
            for step, path in result.checkpoints:  # those of an earlier run among them
                written.put_nowait((step, path))
            written.put_nowait(None)
            return await trials
        finally:
            trials.cancel()
            await asyncio.wait([trials])

    async def _result(self, training: Training) -> TrainingResult:
        try:
            return await self._services.training.result(training)
        except _PASSING:
            raise
        except SDAPIError as error:
            log.warning("portrait training failed: %s", error)
            raise PortraitError(faults.NO_WEIGHTS) from error

    def _job(self, order: _Order, prepared: Prepared) -> TrainingJob:
        request, base, work = order.request, order.base, order.work
        steps = request.max_train_steps
        checkpoint = ModelFile.of(base.checkpoint.path, base.checkpoint.sidecar)
        return TrainingJob(
            id=f"portrait {work.path.name}",
            checkpoint=checkpoint,
            pictures=tuple(TrainingPicture(work.crops / n, c) for n, c in prepared.crops),
            folder=work.weights,
            resolution=order.plan.resolution,
            steps=steps,
            checkpoint_every=min(request.steps_between_evaluations, steps),
            shape=order.plan.shape,
            seed=_SEED,
            checkpoints_gradients=order.plan.checkpoints_gradients,
        )

    async def _try_out(
        self,
        order: _Order,
        prepared: Prepared,
        written: "asyncio.Queue[tuple[int, Path] | None]",
    ) -> list[Trial]:
        """The trials of every checkpoint, in the order they are written; None ends it."""
        trials: list[Trial] = []
        templates: list[Template] | None = None
        while (entry := await written.get()) is not None:
            step, path = entry
            if not order.plan.has_trials or any(trial.step == step for trial in trials):
                continue
            if templates is None:
                templates = await self._templates(order)
            for number, template in enumerate(templates):
                trials.append(
                    await self._trial(order, prepared, Trial(step, number, None), template, path)
                )
        return trials

    async def _templates(self, order: _Order) -> list[Template]:
        try:
            reference = await anyio.Path(order.work.artefacts.reference).read_bytes()
            return await self._validator(order).templates(order.request.sex, reference)
        except (FaceTaskFailed, SDAPIError, RuntimeError) as error:
            _reraise_passing(error)
            log.warning("there is no template for trial pictures: %s", error)
            return []

    async def _trial(
        self, order: _Order, prepared: Prepared, trial: Trial, template: Template, lora: Path
    ) -> Trial:
        """A trial with its score; one that fails is logged and has none."""
        path = anyio.Path(order.work.trial_path(trial))
        try:
            if not await path.is_file():
                name = f"{order.work.path.name}-{trial.step}"
                data = await self._validator(order).draw(template, order.caption, lora, name)
                await path.write_bytes(data)
            embedding = await self._tools.processes.run(recognise, await path.read_bytes())
        except (FaceTaskFailed, OSError, SDAPIError, RuntimeError) as error:
            _reraise_passing(error)
            log.warning("the trial picture of step %d failed: %s", trial.step, error)
            return trial
        if embedding is None:
            return trial
        score = ranking.trial_score(embedding, prepared.vectors, prepared.metric)
        log.info("portrait %s: likeness %.3f at step %d", order.model_id, score, trial.step)
        return replace(trial, score=score)

    def _validator(self, order: _Order) -> Validator:
        return Validator(
            self._services.generation,
            self._services.networks,
            self._tools.processes,
            order.base,
            self._tools.folders.root / _TEMPLATES,
            _SEED,
        )

    async def _choose(
        self, order: _Order, prepared: Prepared, trials: Sequence[Trial]
    ) -> ModelMeta:
        """Write the model's LoRA and best picture into the draft; raises PortraitError."""
        best = ranking.best_trials(trials)
        if order.plan.has_trials and not best:
            raise PortraitError(faults.NO_BEST_IMAGE)
        steps = order.request.max_train_steps
        weights = ranking.merge_weights(best) or {steps: 1}
        name = await anyio.to_thread.run_sync(
            self._tools.folders.lora_name, order.owner, order.model_id
        )
        meta = ModelMeta(
            kind=order.base.kind,
            role="scene" if order.request.is_scene else "person",
            trigger=order.trigger,
            lora_name=name,
            sex=order.request.sex,
            steps=steps,
            captions=order.request.scene_prompts if order.request.is_scene else (),
            scores=ranking.step_scores(trials),
            merged_steps=tuple(trial.step for trial in best) or (steps,),
            providers=dict(prepared.providers or {}),
            checkpoint=order.base.checkpoint.path.name,
            created_s=time.time(),
        )
        try:
            await anyio.to_thread.run_sync(self._write, order, meta, weights, best)
        except OSError as error:
            log.warning("portrait training: the result cannot be written: %s", error)
            raise PortraitError(faults.NO_WEIGHTS) from error
        return meta

    def _write(
        self, order: _Order, meta: ModelMeta, weights: Mapping[int, int], best: Sequence[Trial]
    ) -> None:
        files = {checkpoint_path(order.work.weights, step): n for step, n in weights.items()}
        merge_loras(files, order.work.model / LORA, _metadata(order, meta))
        if best:
            _copy_as_jpeg(order.work.trial_path(best[0]), order.work.model / FACE_ID)
        order.work.artefacts.write_meta(meta)

    async def _publish(self, order: _Order, meta: ModelMeta) -> None:
        folders = self._tools.folders
        try:
            await anyio.to_thread.run_sync(
                folders.publish, order.work.model, order.owner, order.model_id
            )
            await anyio.to_thread.run_sync(
                folders.link_lora, order.owner, order.model_id, meta.lora_name
            )
        except OSError as error:
            log.warning("portrait training: the model cannot be published: %s", error)
            raise PortraitError(faults.FOLDER_FAILED) from error
        await anyio.to_thread.run_sync(self._services.networks.refresh)
        await anyio.to_thread.run_sync(order.work.delete)

    @asynccontextmanager
    async def _alive(self, work: WorkFolder) -> AsyncGenerator[None]:
        """Keep the folder from being taken for remains while a training waits or runs."""

        async def touch() -> None:
            while True:
                with suppress(OSError):
                    await anyio.to_thread.run_sync(work.touch)
                await asyncio.sleep(_TOUCH_S)

        touching = asyncio.ensure_future(touch())
        try:
            yield
        finally:
            touching.cancel()
            await asyncio.wait([touching])


def _identity(base: BaseModel) -> list[Any]:
    """What another file under the same name differs in."""
    try:
        file = ModelFile.of(base.checkpoint.path)
    except OSError as error:
        raise PortraitError(faults.MODEL_UNKNOWN) from error
    return [base.checkpoint.name, file.modified_ns, file.size_bytes, base.native_side]


def _metadata(order: _Order, meta: ModelMeta) -> dict[str, str]:
    """What the LoRA's header tells beside the training's figures."""
    told = {
        "ss_output_name": meta.lora_name,
        "modelspec.title": meta.lora_name,
        "prompt": meta.trigger,
        LORA_MARK: order.work.path.name,
    }
    if meta.role == "scene":
        told |= {"ep_lora_version": "scene", "ep_prompt": "\n".join(meta.captions)}
    return told


def _reraise_passing(error: Exception) -> None:
    if isinstance(error, _PASSING):
        raise error


def _copy_as_jpeg(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        target.write_bytes(to_jpeg(np.asarray(image.convert("RGB"), np.uint8)))
