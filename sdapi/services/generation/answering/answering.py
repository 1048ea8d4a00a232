"""Results -> answers: the webui's, and URL mode's (contract: webui-api 7, design section 4)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from sdapi import images as codecs
from sdapi.engine.jobs.job import Result
from sdapi.errors import TaskCancelled
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.generation.answering import url_mode
from sdapi.services.generation.answering.script_answer import script_answer
from sdapi.services.generation.answering.url_mode import NamedImage
from sdapi.services.generation.answering.url_names import (
    maps_for_urls,
    named_for_urls,
    script_named_for_urls,
    seeds_of,
)
from sdapi.services.generation.inner_runs import InnerRuns
from sdapi.services.generation.order import Order
from sdapi.services.generation.pictures.gathered import Pictures, with_grid
from sdapi.services.generation.pictures.variants import answered
from sdapi.services.generation.saving.saving import Saving
from sdapi.services.generation.telling.generation_info import GenerationInfo
from sdapi.services.options.server_options import ServerOptions
from sdapi.services.scripts.script import GenerationRequest, ScriptResult
from sdapi.services.storage.places import Place


@dataclass(frozen=True, slots=True)
class Answering:
    """Makes the answers; `started` is when the request came, of `time.perf_counter`."""

    options: ServerOptions
    saving: Saving

    async def plain(
        self,
        order: Order,
        result: Result,
        info: GenerationInfo,
        warnings: Sequence[str],
        started: float,
    ) -> dict[str, Any]:
        """The answer to a request without a selectable script."""
        if order.place is None:
            return await self._webui(order, result, info, warnings)
        if not result.images:
            raise TaskCancelled("the task was interrupted before its first picture")

        def name() -> tuple[list[NamedImage], list[NamedImage], list[int]]:
            pictures = with_grid(
                result, info.options, info.job.batch_size, wanted=len(result.images) > 1
            )
            named = named_for_urls(order.kind, pictures, info)
            maps = maps_for_urls(result, info)
            return named, maps, list(seeds_of(pictures, info))

        named, maps, seeds = await anyio.to_thread.run_sync(name)
        told = [*warnings, *result.warnings]
        return await self._urls(order, order.place, named, maps, seeds, told, started)

    async def of_script(
        self, order: Order, runs: InnerRuns, result: ScriptResult, started: float
    ) -> dict[str, Any]:
        """The answer to a request with one."""
        if order.place is not None:
            named, seeds = script_named_for_urls(order, result)
            maps, told = runs.map_files, list(runs.warnings)
            return await self._urls(order, order.place, named, maps, seeds, told, started)
        options = self.options.current
        body, pending = await self.saving.saved(
            lambda folders: script_answer(order, result, folders, options)
        )
        return _complete(order, body, [*runs.warnings, *pending])

    async def _webui(
        self, order: Order, result: Result, info: GenerationInfo, warnings: Sequence[str]
    ) -> dict[str, Any]:
        request, saves = order.request, order.request.save_images
        pictures, pending = await self.saving.keep(
            order.kind, result, info, samples=saves, grid=saves
        )

        def body() -> dict[str, Any]:
            shows = pictures.grid is not None and info.options.flag("return_grid")
            texts = [info.infotext(index) for index in pictures.indices]
            texts = [info.infotext(0), *texts] if shows or not texts else texts
            images: list[str] = []
            if request.send_images:
                options = self.options.current
                images = encode_answer(pictures, info, options, grid=shows)
            return {"images": images, "info": info.to_json(texts, 1 if shows else 0)}

        made = await anyio.to_thread.run_sync(body)
        return _complete(order, made, [*warnings, *result.warnings, *pending])

    async def _urls(
        self,
        order: Order,
        place: Place,
        images: Sequence[NamedImage],
        masks: Sequence[NamedImage],
        seeds: Sequence[int],
        warnings: Sequence[str],
        started: float,
    ) -> dict[str, Any]:
        files = await url_mode.write_all(self.saving.storage, place, images, masks)
        return url_mode.finished(
            id_task=order.eas.id_task,
            files=files,
            seeds=seeds,
            warnings=warnings,
            total_time_s=time.perf_counter() - started,
        )


def encode_answer(
    pictures: Pictures, info: GenerationInfo, options: Options, *, grid: bool
) -> list[str]:
    """The pictures in base64, encoded as the server's own options say; texts as the job's do."""
    options = options.overlay({"enable_pnginfo": info.options.flag("enable_pnginfo")})
    fmt = options.text("samples_format") or "png"
    encoded = [
        codecs.encode(each.image, fmt, None if each.suffix else info.infotext(each.index), options)
        for each in answered(pictures.images, info.options)
    ]
    if grid and pictures.grid is not None:
        encoded.insert(0, codecs.encode(pictures.grid, fmt, info.infotext(0), options))
    further = (*pictures.extra, *pictures.maps)
    encoded += [codecs.encode(image, fmt, None, options) for image in further]
    return [codecs.to_base64(data) for data in encoded]


def echo(request: GenerationRequest) -> dict[str, Any]:
    """The request as `parameters` shows it: pictures only when asked for."""
    content = request.model_dump()
    if isinstance(request, Img2ImgRequest) and not request.include_init_images:
        content |= {"init_images": None, "mask": None}
    return content


def _complete(order: Order, body: dict[str, Any], warnings: Sequence[str]) -> dict[str, Any]:
    """A body with the echo of the request, the task id of an EAS client, and warnings if any."""
    parameters = echo(order.request)
    if (id_task := order.eas.id_task) is not None:
        parameters["id_task"] = id_task
    told = {"warnings": list(warnings)} if warnings else {}
    return {"images": body["images"], "parameters": parameters, "info": body["info"], **told}
