"""extra-single-image and extra-batch-images: request -> job -> answer (contract: webui-api 9)."""

import asyncio
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from PIL import Image

from sdapi import images as codecs
from sdapi import infotext
from sdapi.engine.faces.restorer import FaceRestoration
from sdapi.engine.jobs.extras_job import Enlargement, ExtrasJob
from sdapi.engine.jobs.job import Result
from sdapi.engine.upscaling.upscaler import Filter, Upscaler
from sdapi.errors import BadRequest, TaskCancelled
from sdapi.options import Options
from sdapi.schemas.extras import ExtrasFields
from sdapi.services.catalog.face_restorers import CODEFORMER, GFPGAN, FaceRestorers
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.drafting.hires_request import upscaler_name
from sdapi.services.generation.order import Caller
from sdapi.services.generation.pictures.init_images import ImageLoader
from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import Task, TaskRegistry
from sdapi.services.jobs.telling.cut_short import told_of_stop
from sdapi.services.options.server_options import ServerOptions
from sdapi.settings import Settings

#: of one finished picture, and of all that a request brings or makes
_MAX_PIXELS = 64_000_000
_MAX_TOTAL_PIXELS = 512_000_000
_MAX_PICTURES = 1000


@dataclass(frozen=True, slots=True)
class NamedPicture:
    """A picture as it was sent, and the name it came with."""

    data: str
    name: str = ""
    #: its field in the request
    place: str = "image"


@dataclass(slots=True)
class ExtrasService:
    """Enlarges and restores pictures that callers send. The work is done by a device's worker."""

    settings: Settings
    options: ServerOptions
    tasks: TaskRegistry
    scheduler: Scheduler
    images: ImageLoader

    async def single(self, request: ExtrasFields, data: str, caller: Caller) -> dict[str, Any]:
        """The answer to one picture; raises `SDAPIError`."""
        body = await self._answer(request, [NamedPicture(data)], caller)
        pictures = body.pop("images")
        if not pictures:
            raise TaskCancelled("interrupted before the picture was done")
        return {"html_info": body.pop("html_info"), "image": pictures[0]} | body

    async def batch(
        self, request: ExtrasFields, sent: Sequence[NamedPicture], caller: Caller
    ) -> dict[str, Any]:
        """The answer to several, fewer pictures when interrupted; raises `SDAPIError`."""
        return await self._answer(request, sent, caller)

    async def _answer(
        self, request: ExtrasFields, sent: Sequence[NamedPicture], caller: Caller
    ) -> dict[str, Any]:
        options = self.options.current
        if len(sent) > _MAX_PICTURES:
            raise BadRequest(f"imageList: {len(sent)} pictures; at most {_MAX_PICTURES}")
        task = self.tasks.create("extras")
        try:
            with self.scheduler.place(task):
                job, pictures = await self._made(task.id, request, sent, options)
        except BaseException as error:
            self.tasks.refuse(task, error)
            raise
        task.job = job
        try:
            result = await self._worked(task, caller)
            result = told_of_stop(task, result, wants_whole=caller.wants_whole)
        except BaseException:
            self.tasks.cancel(task)
            raise
        done = told(request, job)
        encoded = await anyio.to_thread.run_sync(_encode, pictures, result, done, options)
        text = as_text(done) if result.images else ""
        body: dict[str, Any] = {"html_info": as_html(text), "images": encoded}
        return body | ({"warnings": list(result.warnings)} if result.warnings else {})

    async def _made(
        self, task_id: str, request: ExtrasFields, sent: Sequence[NamedPicture], options: Options
    ) -> tuple[ExtrasJob, list[Image.Image]]:
        """A task's job, and the pictures that it works on."""
        pictures = [await self.images.load(each.data, options, field=each.place) for each in sent]
        names = tuple(each.name for each in sent)
        job = await anyio.to_thread.run_sync(self._job, task_id, request, options, pictures, names)
        return job, pictures

    async def _worked(self, task: Task, caller: Caller) -> Result:
        """Queue a task that has its job; a caller that goes away cancels it."""
        future = task.future
        if future is None:
            raise TaskCancelled(f"task '{task.id}' was cancelled")
        work = asyncio.wrap_future(future)
        self.scheduler.put(task)
        waits: set[asyncio.Future[Any]] = {work}
        if caller.wait_disconnected is not None:
            waits.add(asyncio.ensure_future(caller.wait_disconnected()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.tasks.cancel(task)
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():
                raise TaskCancelled(f"task '{task.id}' was cancelled") from None
            raise
        finally:
            for wait in waits - {work}:
                wait.cancel()

    def _job(
        self,
        task_id: str,
        request: ExtrasFields,
        options: Options,
        pictures: Sequence[Image.Image],
        names: tuple[str, ...],
    ) -> ExtrasJob:
        enlargement = self._enlargement(request, options)
        _check_sizes(pictures, enlargement)
        usable = [p if p.mode in ("RGB", "RGBA") else p.convert("RGB") for p in pictures]
        return ExtrasJob(task_id, tuple(usable), names, enlargement, self._faces(request))

    def _enlargement(self, request: ExtrasFields, options: Options) -> Enlargement | None:
        """None where no upscaler is asked for, whatever the second is."""
        upscalers = Upscalers(self.settings)
        first, second = (
            upscalers.find(name, options) for name in (request.upscaler_1, request.upscaler_2)
        )
        if first is Filter.NONE:
            return None
        size = request.upscaling_resize_w, request.upscaling_resize_h
        covers = request.resize_mode == 1
        return Enlargement(
            upscaler=first,
            factor=None if covers else request.upscaling_resize,
            size=size,
            crops=covers and request.upscaling_crop,
            second=None if second is Filter.NONE else second,
            second_share=request.extras_upscaler_2_visibility,
        )

    def _faces(self, request: ExtrasFields) -> tuple[FaceRestoration, ...]:
        restorers = FaceRestorers(self.settings)
        asked = (
            (GFPGAN, request.gfpgan_visibility, 0.0),
            (CODEFORMER, request.codeformer_visibility, request.codeformer_weight),
        )
        return tuple(
            restorers.find(name, visibility=visibility, weight=weight)
            for name, visibility, weight in asked
            if visibility > 0
        )


def told(request: ExtrasFields, job: ExtrasJob) -> dict[str, object]:
    """What was done to each picture, under the webui's keys, in order."""
    keys: dict[str, object] = {}
    if job.enlargement is not None:
        keys |= _told_of_size(job.enlargement)
        keys["Postprocess upscaler"] = upscaler_name(job.enlargement.upscaler)
        if _mixes(job.enlargement.second, job.enlargement.second_share):
            keys["Postprocess upscaler 2"] = request.upscaler_2
    for faces in job.faces:
        keys[f"{faces.name} visibility"] = round(faces.visibility, 3)
        if faces.name == CODEFORMER:
            keys[f"{CODEFORMER} weight"] = round(faces.weight, 3)
    return keys


def as_text(keys: dict[str, object]) -> str:
    """The keys as the `postprocessing` text of a picture has them."""
    return infotext.build(list(keys.items()), "", "")


def as_html(text: str) -> str:
    """A text as the webui shows it."""
    return f"<p>{'<br>'.join(html.escape(line) for line in text.splitlines())}</p>"


def _told_of_size(asked: Enlargement) -> dict[str, object]:
    if asked.factor is not None:
        return {"Postprocess upscale by": asked.factor}
    size = f"{asked.size[0]}x{asked.size[1]}"
    crop: dict[str, object] = {"Postprocess crop to": size} if asked.crops else {}
    return {"Postprocess upscale to": size} | crop


def _mixes(second: Upscaler | None, share: float) -> bool:
    return second is not None and share > 0


def _check_sizes(pictures: Sequence[Image.Image], asked: Enlargement | None) -> None:
    """Refuse what would grow too large, or shrink to nothing, before it is queued."""
    total = 0
    for picture in pictures:
        size = picture.size if asked is None else _size_after(asked, picture.size)
        if min(size) < 1 or size[0] * size[1] > _MAX_PIXELS:
            raise BadRequest(
                f"a picture of {picture.width}x{picture.height} would become {size[0]}x{size[1]}; "
                f"at least 8x8, at most {_MAX_PIXELS // 1_000_000} megapixels"
            )
        total += size[0] * size[1]
    if total > _MAX_TOTAL_PIXELS:
        raise BadRequest(
            f"the pictures come to {total // 1_000_000} megapixels in all; at most "
            f"{_MAX_TOTAL_PIXELS // 1_000_000}"
        )


def _size_after(asked: Enlargement, size: tuple[int, int]) -> tuple[int, int]:
    """The larger of a picture's size once enlarged and that of its canvas."""
    factor = min(asked.factor_for(size), _MAX_PIXELS)
    width, height = (int(side * factor // 8 * 8) for side in size)
    if asked.crops and asked.size[0] * asked.size[1] > width * height > 0:
        return asked.size
    return width, height


def _encode(
    pictures: Sequence[Image.Image], result: Result, done: dict[str, object], options: Options
) -> list[str]:
    """The finished pictures in base64, each with the text that it came with and what was done."""
    encoded: list[str] = []
    for each in result.images:
        text, items = codecs.read_infotext(pictures[each.index])
        image = each.image.copy()
        kept = {key: value for key, value in items.items() if isinstance(value, str)}
        image.info = {**kept, "postprocessing": as_text(done)}
        fmt = options.text("samples_format") or "png"
        encoded.append(codecs.to_base64(codecs.encode(image, fmt, text or None, options)))
    return encoded
