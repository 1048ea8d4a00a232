"""txt2img and img2img: request -> job -> result -> answer."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from PIL import Image

from sdapi.engine.job import Result
from sdapi.errors import BadRequest, TaskCancelled
from sdapi.logs import log_fields
from sdapi.metrics import Metrics
from sdapi.object_url import is_object_url
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.catalog.catalog import Catalog, Checkpoint
from sdapi.services.catalog.hashes import HashCache
from sdapi.services.catalog.networks import NetworkCatalog
from sdapi.services.catalog.object_models import FetchedModels, NotFetched, ObjectModels
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation import delivery, url_mode
from sdapi.services.generation.device_upscaling import DeviceUpscaling
from sdapi.services.generation.eas import EASFields
from sdapi.services.generation.finish import finish_result
from sdapi.services.generation.generation_info import GenerationInfo
from sdapi.services.generation.image_files import ImageFiles
from sdapi.services.generation.img2img import InitInputs
from sdapi.services.generation.init_images import ImageLoader
from sdapi.services.generation.intake import Intake
from sdapi.services.generation.job_builder import Draft, JobBuilder, check_formats
from sdapi.services.generation.network_files import told_hashes
from sdapi.services.generation.order import Caller, Order
from sdapi.services.generation.script_answer import (
    InnerRuns,
    named_for_urls,
    run_script,
    script_answer,
)
from sdapi.services.generation.soft_inpainting import soft_inpainting
from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import Task, TaskRegistry
from sdapi.services.scripts.always_on import prepare_job
from sdapi.services.scripts.registry import Scripts
from sdapi.services.scripts.script import GenerationRequest, Kind, Preparation
from sdapi.services.server_options import ServerOptions
from sdapi.services.storage.local_disk import replace_file
from sdapi.services.storage.places import Place
from sdapi.services.storage.storage import Storage
from sdapi.services.unbroken import forget, unbroken
from sdapi.settings import Settings

if TYPE_CHECKING:
    from sdapi.services.container import Services

log = logging.getLogger(__name__)

Request = GenerationRequest
_Made = TypeVar("_Made")
#: How long a finished picture waits for its checkpoint's hash.
_HASH_WAIT_S = 5.0
#: Requests that are prepared, or finished, at a time; models may work for them meanwhile.
_MOST_PREPARING = 64


@dataclass(slots=True)
class GenerationService:
    """Runs requests from start to answer. Everything slow happens off the event loop."""

    settings: Settings
    options: ServerOptions
    catalog: Catalog
    networks: NetworkCatalog
    hashes: HashCache
    tasks: TaskRegistry
    scheduler: Scheduler
    images: ImageLoader
    scripts: Scripts
    metrics: Metrics
    storage: Storage
    objects: ObjectModels
    files: ImageFiles = field(init=False)
    #: threads that may wait for a device, and so are not those that everything else needs
    _preparing: anyio.CapacityLimiter = field(
        default_factory=partial(anyio.CapacityLimiter, _MOST_PREPARING)
    )
    #: what scripts may use; set once there are all of them
    services: "Services" = field(init=False)

    def __post_init__(self) -> None:
        self.files = ImageFiles(self.storage.names_beside)

    async def answer(self, kind: Kind, request: Request, caller: Caller) -> dict[str, Any]:
        """The answer to a request, as the webui or, with a `save_dir`, as URL mode gives it.

        Raises `SDAPIError`; in URL mode the route turns it into that mode's shape.
        """
        started = time.perf_counter()
        if caller.webhook is not None:
            await self.services.webhooks.check(caller.webhook)
        intake = Intake(self.settings, self.networks, self.scripts, self.storage, self._folders)
        asked = await anyio.to_thread.run_sync(intake.read, kind, request, self.options.current)
        id_task = asked.eas.id_task or asked.request.force_task_id
        task = self.tasks.create(kind, id_task, asked.eas.uid)
        order = Order.of(asked, caller, task)
        with log_fields(task_id=task.id, uid=task.uid):
            try:
                if order.scripts.selected is not None:
                    return await self._script_answer(order, started)
                return await self._plain_answer(order, started)
            finally:
                if caller.webhook is not None:
                    self.services.webhooks.tell(task, caller.webhook)

    async def _plain_answer(self, order: Order, started: float) -> dict[str, Any]:
        kind, task, eas = order.kind, order.task, order.eas
        work = self._drawn_in_parts if order.needs_device_before else self._drawn_at_once
        draft, result = await self._wait(order, asyncio.ensure_future(work(order)))
        info = await self.info(order, draft, result)
        drawn_at = time.perf_counter()
        if order.place is not None:
            answer = await self._url_answer(kind, order.place, result, info, eas, started)
        else:
            answer = await self._webui_answer(order, result, info, draft.warnings)
        self._tell_times(task, result, started, drawn_at)
        return answer

    async def _drawn_at_once(self, order: Order) -> tuple[Draft, Result]:
        """An order's job, and its result with the pictures finished."""
        try:
            draft = await self.draft(order)
            order.task.on_done = self._on_done(order)
            order.task.job = draft.job
        except BaseException:
            self.tasks.cancel(order.task)
            raise
        return draft, await self.finished(order, draft, await self.drawn(order.task))

    async def _drawn_in_parts(self, order: Order) -> tuple[Draft, Result]:
        """The same, of several jobs: before and after the drawing a model enlarges pictures."""
        error: BaseException | None = None
        try:
            draft = await self.draft(order)
            inner = self.tasks.create_inner(order.task)
            inner.job, inner.on_done = draft.job, self._on_done(order)
            return draft, await self.finished(order, draft, await self.drawn(inner))
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.tasks.end(order.task, error)

    def _on_done(self, order: Order) -> Callable[[], None] | None:
        request = order.request
        if not request.override_settings or request.override_settings_restore_afterwards:
            return None
        return self._keep_options(dict(request.override_settings))

    def _tell_times(self, task: Task, result: Result, started: float, drawn_at: float) -> None:
        """Count how long the answer took to make; with `--time-log` tell all phases."""
        now = time.perf_counter()
        self.metrics.phase_seconds.labels("deliver").observe(now - drawn_at)
        if not self.settings.time_log:
            return
        phases = {
            "queue_s": (task.started or task.created) - task.created,
            "load_s": result.load_s,
            "sample_s": result.sample_s,
            "decode_s": result.decode_s,
            "deliver_s": now - drawn_at,
            "total_s": now - started,
        }
        log.info("request timed", extra={key: round(value, 4) for key, value in phases.items()})

    async def draft(self, order: Order) -> Draft:
        """The job of an order, with what its answer needs; raises `SDAPIError` for bad input."""
        request, options, eas = order.request, order.options, order.eas
        inputs = None
        if isinstance(request, Img2ImgRequest):
            inputs = await self.images.inputs(request, eas.image_link, options)
            inputs = replace(inputs, soft=soft_inpainting(order.scripts))
        first_picture = None
        if isinstance(request, Txt2ImgRequest) and request.enable_hr and request.firstpass_image:
            first_picture = await self.images.first_picture(request, options)
        objects = FetchedModels()
        builder = replace(self.builder(order), objects=objects)

        def build() -> Draft | NotFetched:
            try:
                made = builder.build(order.task.id, request, options, eas, inputs, first_picture)
            except NotFetched as needed:
                return needed
            made = self._with_scripts(order, made, inputs)
            if not self.settings.no_hashing:
                self._begin_hashing(made)
            return made

        # A model of an object store takes minutes, which no thread of those waits for.
        while True:
            made = await anyio.to_thread.run_sync(build, limiter=self._preparing)
            if isinstance(made, Draft):
                return made
            await self.objects.fetch(objects, made, lambda: order.task.is_wanted)
            order.task.files |= objects.paths

    def _begin_hashing(self, draft: Draft) -> None:
        """Have the hashes that its answer tells known by the time it is drawn. Blocks."""
        if draft.checkpoint.path.is_file():
            self.hashes.compute(draft.checkpoint.path)
        for lora in draft.loras.values():
            if self.networks.shorthash(lora) is None:
                self.networks.hashes.compute(lora.path)

    def builder(self, order: Order) -> JobBuilder:
        """What makes jobs of an order's requests."""
        upscalers = Upscalers(self.settings)
        on_device = DeviceUpscaling(self.tasks, self.drawn, order.task)
        return JobBuilder(
            self.catalog, order.styles, self.networks, upscalers, on_device.function_of
        )

    def _with_scripts(self, order: Order, draft: Draft, inputs: InitInputs | None) -> Draft:
        """Let the always-on scripts prepare a job. In a worker thread of anyio's."""

        def load_image(text: str, field: str) -> Image.Image:
            load = partial(self.images.load, text, order.options, field=field)
            return anyio.from_thread.run(load)

        warnings = list(draft.warnings)
        preparation = Preparation(
            order.kind,
            order.request,
            order.options,
            self.services,
            keys=draft.keys,
            warnings=warnings,
            load_image=load_image,
            inputs=inputs,
            prepared=draft.prepared,
        )
        job = prepare_job(draft.job, order.scripts.always_on, preparation)
        return replace(draft, job=job, warnings=tuple(warnings))

    async def drawn(self, task: Task) -> Result:
        """Queue a task that has its job, and wait for the result.

        Raises `QueueFull`, `TaskCancelled` when it was cancelled before it began, or what the
        engine raised.
        """
        if task.future is None:
            raise TaskCancelled(f"task '{task.id}' was cancelled")
        future = asyncio.wrap_future(task.future)
        try:
            self.scheduler.put(task)
        except BaseException:
            self.tasks.cancel(task)
            raise
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.cancelled():
                raise TaskCancelled(f"task '{task.id}' was cancelled") from None
            raise

    async def finished(self, order: Order, draft: Draft, result: Result) -> Result:
        """A result with what is done to its pictures off the device."""
        if draft.prepared is None:
            return result
        prepared, batch_size = draft.prepared, draft.job.batch_size

        def work(folders: delivery.OutputFolders) -> Result:
            if order.eas.save_dir is None:
                folders.save_init_images(prepared.originals, order.options)
            return finish_result(result, prepared.finish, batch_size, order.options)

        done, pending = await self._saved(work, self._preparing)
        return replace(done, warnings=(*done.warnings, *pending)) if pending else done

    async def _script_answer(self, order: Order, started: float) -> dict[str, Any]:
        request, keep = order.request, None
        try:
            if request.override_settings and not request.override_settings_restore_afterwards:
                keep = self._keep_options(dict(request.override_settings))
        except BaseException:
            self.tasks.cancel(order.task)
            raise
        runs = InnerRuns(self, order)
        result = await self._wait(order, asyncio.ensure_future(run_script(runs)))
        if keep is not None:
            keep()
        if order.place is not None:
            named, seeds = named_for_urls(order, result)
            return url_mode.finished(
                id_task=order.eas.id_task,
                files=await url_mode.write_all(self.storage, order.place, named, runs.map_files),
                seeds=seeds,
                total_time_s=time.perf_counter() - started,
            )
        options = self.options.current
        body, pending = await self._saved(
            lambda folders: script_answer(order, result, folders, options)
        )
        body["parameters"] = _parameters(order)
        if warnings := [*runs.warnings, *pending]:
            body["warnings"] = warnings
        return body

    def _keep_options(self, overrides: dict[str, Any]) -> Callable[[], None]:
        """Write a request's options into the server's once its job has succeeded."""
        if self.settings.freeze_settings:
            raise BadRequest("override_settings_restore_afterwards: changing settings is disabled")
        for key in ("sd_model_checkpoint", "sd_vae"):
            if is_object_url(str(overrides.get(key, ""))):
                raise BadRequest(
                    f"override_settings_restore_afterwards: {key} {overrides[key]} is an object of "
                    "one request; the server's own is a file below its models folder"
                )
        check_formats(self.options.current.overlay(overrides))
        return lambda: self.options.change(overrides)

    async def _wait(self, order: Order, work: "asyncio.Future[_Made]") -> _Made:
        """The outcome; a client that goes away cancels the task, unless it gave it an id."""
        caller, task = order.caller, order.task
        keeps_running = bool(order.eas.id_task)
        if caller.wait_disconnected is None or keeps_running:
            return await self._shielded(work, task, cancels=not keeps_running)
        gone = asyncio.ensure_future(caller.wait_disconnected())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.tasks.cancel(task)
            return await self._shielded(work, task, cancels=True)
        finally:
            gone.cancel()

    async def _shielded(self, work: "asyncio.Future[_Made]", task: Task, *, cancels: bool) -> _Made:
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if cancels:
                self.tasks.cancel(task)
            work.add_done_callback(forget)
            raise

    async def info(self, order: Order, draft: Draft, result: Result) -> GenerationInfo:
        """What the answer to an order tells, with the hashes that are known soon enough."""
        request, options, task = order.request, order.options, order.task
        checkpoint, vae_hash = await self._hashed(draft.checkpoint), None
        if draft.vae is not None and not self.settings.no_hashing:
            sha256 = await self.hashes.wait(draft.vae.path, _HASH_WAIT_S)
            vae_hash = sha256[:10] if sha256 else None
        hash_wait_s = 0.0 if self.settings.no_hashing else _HASH_WAIT_S
        extra = await told_hashes(
            draft.keys | result.extra, draft.loras, self.networks, options, hash_wait_s
        )
        if draft.refiner is not None and "Refiner" in extra:
            extra["Refiner"] = (await self._hashed(draft.refiner)).short_title
        begun = datetime.fromtimestamp(task.started or task.created)
        return GenerationInfo(
            job=draft.job,
            options=options,
            checkpoint=checkpoint,
            vae=draft.vae,
            vae_hash=vae_hash,
            styles=draft.styles,
            style_prompts=draft.style_prompts,
            extra=extra,
            job_timestamp=begun.strftime("%Y%m%d%H%M%S"),
            is_inpainting_model=result.is_inpainting_model,
            is_editing_model=result.is_editing_model,
            init_image_hash=draft.prepared.image_hash if draft.prepared else None,
            subseed_strength=request.subseed_strength or 0,
            seed_resize_from_w=-1
            if request.seed_resize_from_w is None
            else request.seed_resize_from_w,
            seed_resize_from_h=-1
            if request.seed_resize_from_h is None
            else request.seed_resize_from_h,
            user=order.caller.user,
        )

    async def _hashed(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with its hash, if that is known in time."""
        if self.settings.no_hashing or checkpoint.sha256:
            return checkpoint
        return replace(checkpoint, sha256=await self.hashes.wait(checkpoint.path, _HASH_WAIT_S))

    async def _webui_answer(
        self, order: Order, result: Result, info: GenerationInfo, warnings: Sequence[str]
    ) -> dict[str, Any]:
        request, saves = order.request, order.request.save_images
        pictures, pending = await self.keep(order.kind, result, info, samples=saves, grid=saves)

        def work() -> tuple[list[str], list[str], bool]:
            shows = pictures.grid is not None and info.options.flag("return_grid")
            texts = [info.infotext(index) for index in pictures.indices]
            texts = [info.infotext(0), *texts] if shows or not texts else texts
            if not request.send_images:
                return [], texts, shows
            server = self.options.current
            return delivery.encode_answer(pictures, info, server, grid=shows), texts, shows

        images, texts, has_grid = await anyio.to_thread.run_sync(work)
        body: dict[str, Any] = {
            "images": images,
            "parameters": _parameters(order),
            "info": info.to_json(texts, 1 if has_grid else 0),
        }
        if told := [*warnings, *result.warnings, *pending]:
            body["warnings"] = told
        return body

    async def _saved(
        self,
        work: Callable[[delivery.OutputFolders], _Made],
        limiter: anyio.CapacityLimiter | None = None,
    ) -> tuple[_Made, list[str]]:
        """What work that saves files returns, and a sentence if some of them wait for their upload.

        What is saved is delivered, whether the work fails half-way or its caller goes away.
        """
        folders = self._folders

        async def saved() -> tuple[_Made, list[str]]:
            try:
                made = await anyio.to_thread.run_sync(work, folders, limiter=limiter)
            except BaseException:
                await self.storage.deliver(folders.saved)
                raise
            pending = await self.storage.deliver(folders.saved)
            sentence = f"saved files are stored, upload pending: {pending}"
            return made, [sentence] if pending else []

        return await unbroken(saved())

    async def _url_answer(
        self,
        kind: Kind,
        save_dir: Place,
        result: Result,
        info: GenerationInfo,
        eas: EASFields,
        started: float,
    ) -> dict[str, Any]:
        if not result.images:
            raise TaskCancelled("the task was interrupted before its first picture")

        def work() -> tuple[list[url_mode.NamedImage], list[url_mode.NamedImage], list[int]]:
            pictures = delivery.with_grid(
                result, info.options, info.job.batch_size, wanted=len(result.images) > 1
            )
            named = delivery.named_for_urls(kind, pictures, info)
            maps = delivery.maps_for_urls(result, info)
            return named, maps, list(delivery.seeds_of(pictures, info))

        named, maps, seeds = await anyio.to_thread.run_sync(work)
        return url_mode.finished(
            id_task=eas.id_task,
            files=await url_mode.write_all(self.storage, save_dir, named, maps),
            seeds=seeds,
            total_time_s=time.perf_counter() - started,
        )

    async def keep(
        self, kind: Kind, result: Result, info: GenerationInfo, *, samples: bool, grid: bool
    ) -> tuple[delivery.Pictures, list[str]]:
        """The pictures of a job, with a grid if wanted, written if the request wants it.

        Besides warnings about what is written and not uploaded yet.
        """

        def work(folders: delivery.OutputFolders) -> delivery.Pictures:
            batch_size = info.job.batch_size
            wanted = delivery.wants_grid(result, info.options, saves=grid)
            pictures = delivery.with_grid(result, info.options, batch_size, wanted=wanted)
            keeps = not result.interrupted or info.options.flag("save_incomplete_images")
            if (samples or grid) and keeps:
                folders.save(kind, pictures, info, samples=samples)
            if not self.settings.no_prompt_history:
                self._remember_prompt(info.infotext(0))
            return pictures

        return await self._saved(work)

    @property
    def _folders(self) -> delivery.OutputFolders:
        return delivery.OutputFolders(self.settings, self.files, self.storage)

    def _remember_prompt(self, text: str) -> None:
        path = Path(self.settings.data_dir) / "params.txt"
        try:
            replace_file(path, text.encode())
        except OSError as error:
            log.warning("%s cannot be written: %s", path, error)


def echo(request: Request) -> dict[str, Any]:
    """The request as `parameters` shows it: pictures only when asked for."""
    content = request.model_dump()
    if isinstance(request, Img2ImgRequest) and not request.include_init_images:
        content |= {"init_images": None, "mask": None}
    return content


def _parameters(order: Order) -> dict[str, Any]:
    """The echo, with the task id of an EAS client."""
    id_task = order.eas.id_task
    return echo(order.request) | ({} if id_task is None else {"id_task": id_task})
