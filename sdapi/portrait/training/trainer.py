"""Trains models of people and scenes. Contract: portrait-pipeline 2; errors: portrait-api 2.10.

A training that is cut short (its caller is gone, the server stops or dies) leaves its work folder,
from which an equal request goes on; so does one whose end nobody has settled. One that fails leaves
nothing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
import numpy as np
from PIL import Image

from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import Conflict, QueueFull, SDAPIError
from sdapi.portrait import faults
from sdapi.portrait.base.checkpoints import BaseModel, BaseModels
from sdapi.portrait.faces.face import Embedding
from sdapi.portrait.faces.processes import FaceTaskFailed
from sdapi.portrait.faults import PASSING, PortraitError
from sdapi.portrait.handlers import Trained
from sdapi.portrait.models.artefacts import FACE_ID, LORA, Artefacts, ModelMeta
from sdapi.portrait.models.folders import LORA_MARK
from sdapi.portrait.tools import Tools
from sdapi.portrait.training import ranking
from sdapi.portrait.training.photos.preparation import Preparation
from sdapi.portrait.training.photos.study import now_used, recognise, to_jpeg
from sdapi.portrait.training.plans import plan_for
from sdapi.portrait.training.ranking import Trial
from sdapi.portrait.training.training_order import TrainingOrder
from sdapi.portrait.training.trying.merging import merge_loras
from sdapi.portrait.training.trying.trials import Trials, Written
from sdapi.portrait.training.trying.validation import Validator
from sdapi.portrait.training.work_folder import Done, Prepared, WorkFolder, as_kept
from sdapi.portrait.wire.requests import TrainRequest
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
#: for the update that a training of the same model was in when it was cancelled
_HANDOVER_S, _HANDOVER_POLL_S = 120.0, 0.2
_SEED: Final = 1
#: where drawn templates of trials are kept, below the portraits' folder
_TEMPLATES: Final = "templates"
log = logging.getLogger(__name__)


class PortraitTrainer:
    """Trains with this process's workers; `make.LateTrainer` makes it one of `handlers`."""

    def __init__(self, services: Services, tools: Tools, bases: BaseModels) -> None:
        self._services = services
        self._tools = tools
        self._bases = bases
        self._preparing = anyio.Semaphore(_PREPARED_AT_ONCE)
        #: one training of a model at a time; the next replaces what the first has made
        self._locks = WeakValueDictionary[tuple[str, str], asyncio.Lock]()

    async def train(self, owner: str, model_id: str, request: TrainRequest) -> Trained:
        work = WorkFolder(self._tools.folders.work(owner, model_id))
        async with self._locks.setdefault((owner, model_id), asyncio.Lock()):
            done = await anyio.to_thread.run_sync(self._done, owner, model_id, request, work)
            order = await self._order(owner, model_id, request, work) if done is None else None
            try:
                if order is not None:
                    done = await self._train(order)
                assert done is not None
                await self._publish(owner, model_id, work, done.meta)
            except PortraitError:
                await anyio.to_thread.run_sync(work.delete)
                raise
        log.info("portrait model %s is trained", model_id)
        settle = partial(self._settle, owner, model_id, work, done)
        return Trained(done.meta.to_json(), list(done.states), settle)

    async def _settle(self, owner: str, model_id: str, work: WorkFolder, done: Done) -> None:
        """Delete what a training worked on, unless the folder is by now that of a later one."""
        if (owner, model_id) in self._locks:  # whoever trains the model sees to the folder
            return
        async with self._locks.setdefault((owner, model_id), asyncio.Lock()):
            await anyio.to_thread.run_sync(work.settle, done)

    def _done(
        self, owner: str, model_id: str, request: TrainRequest, work: WorkFolder
    ) -> Done | None:
        """What an equal request has made that nobody has heard of yet."""
        published = Artefacts(self._tools.folders.published(owner, model_id))
        return work.done(request.to_json(), published)

    async def _order(
        self, owner: str, model_id: str, request: TrainRequest, work: WorkFolder
    ) -> TrainingOrder:
        base = await anyio.to_thread.run_sync(self._bases.find, "xl" if request.is_xl else "sd15")
        if base is None:
            raise PortraitError(faults.MODEL_UNKNOWN)
        return TrainingOrder(owner, model_id, request, base, plan_for(request, base), work)

    async def _train(self, order: TrainingOrder) -> Done:
        prepared = await self._prepared(order)
        async with self._alive(order.work):
            trials = await self._learn(order, prepared)
            return await self._choose(order, prepared, trials)

    async def _prepared(self, order: TrainingOrder) -> Prepared:
        """The photos looked at; those of a run that was interrupted are not fetched again."""
        work, request = order.work, order.request
        asked = {**request.to_json(), "checkpoint": _identity(order.base)}
        try:
            await anyio.to_thread.run_sync(work.open, asked)
            prepared = await anyio.to_thread.run_sync(work.prepared)
            if prepared is not None:
                return await self._seen_alike(order, prepared)
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

    async def _seen_alike(self, order: TrainingOrder, prepared: Prepared) -> Prepared:
        """Embeddings of today's provider: those of two are never compared."""
        if not prepared.providers:  # a scene
            return prepared
        processes = self._tools.processes
        try:
            used, metric = await processes.run(now_used)
            if used["embedder"] == prepared.providers.get("embedder"):
                return prepared
            log.info("portrait %s: looked at anew by %s", order.model_id, used["embedder"])
            seen: list[Embedding] = []
            for name, _ in prepared.crops:
                data = await anyio.Path(order.work.crops, name).read_bytes()
                if (vector := await processes.run(recognise, data)) is not None:
                    seen.append(vector)
        except FaceTaskFailed as error:
            raise PortraitError(faults.IMAGES_UNUSABLE) from error
        if not seen:
            raise PortraitError(faults.IMAGES_UNUSABLE)
        renewed = replace(prepared, embeddings=as_kept(seen), metric=metric, providers=used)
        await anyio.to_thread.run_sync(order.work.keep, renewed)
        return renewed

    async def _learn(self, order: TrainingOrder, prepared: Prepared) -> list[Trial]:
        """Train, and draw trials meanwhile; raises PortraitError, and what passes."""
        written = Written()
        trials = Trials(order, prepared, self._validator(order), self._tools.processes)
        trying = asyncio.ensure_future(trials.of(written))
        learning = asyncio.ensure_future(self._learnt(order, prepared, written))
        try:
            # Trials end before their training only with an error, which is then told at once.
            await asyncio.wait({trying, learning}, return_when=asyncio.FIRST_COMPLETED)
            if not learning.done() and order.plan.has_trials:
                await trying
            for entry in (await learning).checkpoints:  # those of an earlier run among them
                written.put_nowait(entry)
            written.put_nowait(None)
            return await trying
        finally:
            trying.cancel()
            learning.cancel()
            await asyncio.wait({trying, learning})

    async def _learnt(
        self, order: TrainingOrder, prepared: Prepared, written: Written
    ) -> TrainingResult:
        """The weights of every checkpoint; raises PortraitError, and what passes."""
        loop = asyncio.get_running_loop()

        def on_checkpoint(step: int, path: Path) -> None:
            with suppress(RuntimeError):  # the loop may have ended before the worker
                loop.call_soon_threadsafe(written.put_nowait, (step, path))

        try:
            job = await anyio.to_thread.run_sync(self._job, order, prepared)
            training = await self._submitted(job, on_checkpoint)
            return await self._services.training.result(training)
        except PASSING:
            raise
        except Exception as error:  # whatever a device raises while it learns
            is_expected = isinstance(error, SDAPIError)
            log.warning("portrait training failed: %s", error, exc_info=not is_expected)
            raise PortraitError(faults.NO_WEIGHTS) from error

    async def _submitted(self, job: TrainingJob, on_checkpoint: Any) -> Training:
        """The training in its line; one that was cancelled just now is waited for."""
        end = time.monotonic() + _HANDOVER_S
        while True:
            try:
                return self._services.training.submit(job, on_checkpoint)
            except Conflict as error:
                if time.monotonic() > end:
                    raise QueueFull(error.detail) from error
                await asyncio.sleep(_HANDOVER_POLL_S)

    def _job(self, order: TrainingOrder, prepared: Prepared) -> TrainingJob:
        request, base, work = order.request, order.base, order.work
        checkpoint = ModelFile.of(base.checkpoint.path, base.checkpoint.sidecar)
        return TrainingJob(
            id=f"portrait {work.path.name}",
            checkpoint=checkpoint,
            pictures=tuple(TrainingPicture(work.crops / n, c) for n, c in prepared.crops),
            folder=work.weights,
            resolution=order.plan.resolution,
            steps=request.max_train_steps,
            checkpoint_every=order.plan.evaluated_every,
            shape=order.plan.shape,
            learning_rate=order.plan.learning_rate,
            text_learning_rate=order.plan.learning_rate / 2,
            seed=_SEED,
            checkpoints_gradients=order.plan.checkpoints_gradients,
        )

    def _validator(self, order: TrainingOrder) -> Validator:
        return Validator(
            self._services.generation,
            self._services.networks,
            self._tools.processes,
            order.base,
            self._tools.folders.root / _TEMPLATES,
            _SEED,
        )

    async def _choose(
        self, order: TrainingOrder, prepared: Prepared, trials: Sequence[Trial]
    ) -> Done:
        """Write the model's LoRA and best picture into the draft; raises PortraitError."""
        # Another provider than an earlier run's may like what that run has dropped.
        best = ranking.best_trials([t for t in trials if order.work.weights_of(t).exists()])
        if order.plan.has_trials and not best:
            raise PortraitError(faults.NO_BEST_IMAGE)
        steps = order.request.max_train_steps
        weights = ranking.merge_weights(best) or {steps: 1}
        try:
            name = await anyio.to_thread.run_sync(self._lora_name, order)
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
            done = Done(meta, prepared.states)
            await anyio.to_thread.run_sync(_write, order, done, weights, best)
        except OSError as error:
            log.warning("portrait training: the result cannot be written: %s", error)
            raise PortraitError(faults.NO_WEIGHTS) from error
        return done

    def _lora_name(self, order: TrainingOrder) -> str:
        networks = self._services.networks
        networks.refresh()
        known = [lora.path for lora in networks.loras]
        return self._tools.folders.lora_name(order.owner, order.model_id, known)

    async def _publish(self, owner: str, model_id: str, work: WorkFolder, meta: ModelMeta) -> None:
        folders = self._tools.folders

        def publish() -> None:
            if Artefacts(folders.published(owner, model_id)).hold(meta):
                return  # it had been published when its server stopped
            # The link first: where none can be made, the old model stays as it was.
            folders.link_lora(owner, model_id, meta.lora_name, work.artefacts.lora)
            folders.publish(work.model, owner, model_id)

        try:
            await anyio.to_thread.run_sync(publish)
        except OSError as error:
            log.warning("portrait training: the model cannot be published: %s", error)
            raise PortraitError(faults.FOLDER_FAILED) from error
        await anyio.to_thread.run_sync(self._services.networks.refresh)

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


def _write(
    order: TrainingOrder, done: Done, weights: Mapping[int, int], best: Sequence[Trial]
) -> None:
    """The model's LoRA, its best picture, what it is, and at last that it is whole."""
    files = {checkpoint_path(order.work.weights, step): n for step, n in weights.items()}
    merge_loras(files, order.work.model / LORA, _metadata(order, done.meta))
    if best:
        _copy_as_jpeg(order.work.trial_path(best[0]), order.work.model / FACE_ID)
    order.work.artefacts.write_meta(done.meta)
    order.work.finish(done, order.request.to_json())


def _identity(base: BaseModel) -> list[Any]:
    """What another file under the same name differs in, and what it says of trainings."""
    try:
        file = ModelFile.of(base.checkpoint.path)
    except OSError as error:
        raise PortraitError(faults.MODEL_UNKNOWN) from error
    weights = (base.checkpoint.name, file.modified_ns, file.size_bytes)
    return [*weights, base.native_side, base.learning_rate, base.trains_convolutions]


def _metadata(order: TrainingOrder, meta: ModelMeta) -> dict[str, str]:
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


def _copy_as_jpeg(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        target.write_bytes(to_jpeg(np.asarray(image.convert("RGB"), np.uint8)))
