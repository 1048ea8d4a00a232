"""A request that chose a script: its inner generations, and the answer made of their pictures.

Contract: webui-api 6.3, webui-scripts 1.3.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from sdapi import images as codecs
from sdapi.engine.job import Job, Result
from sdapi.errors import TaskCancelled
from sdapi.options import Options
from sdapi.services.generation import url_mode
from sdapi.services.generation.delivery import OutputFolders
from sdapi.services.generation.order import Order
from sdapi.services.jobs.tasks import State
from sdapi.services.scripts.script import (
    Generated,
    GenerationRequest,
    Kind,
    ScriptResult,
)

if TYPE_CHECKING:
    from sdapi.services.container import Services
    from sdapi.services.generation.service import GenerationService


@dataclass(slots=True)
class InnerRuns:
    """Runs the inner generations of one order; what a script sees of the service."""

    service: "GenerationService"
    order: Order
    #: the server's options when the request came
    server_options: Options
    #: sentences for the answer, once each
    warnings: dict[str, None] = field(default_factory=dict[str, None])

    @property
    def kind(self) -> Kind:
        return self.order.kind

    @property
    def request(self) -> GenerationRequest:
        return self.order.request

    @property
    def options(self) -> Options:
        return self.order.options

    @property
    def services(self) -> "Services":
        return self.service.services

    @property
    def is_interrupted(self) -> bool:
        return self.order.task.monitor.interrupted.is_set()

    @property
    def is_skipped(self) -> bool:
        return self.order.task.monitor.skipped.is_set()

    def plan(self, passes: int) -> None:
        self.order.task.monitor.plan(passes)

    async def load_image(self, source: Any, field: str) -> Image:
        return await self.service.images.load(source, self.order.options, field=field)

    async def generate(
        self, request: GenerationRequest, *, change: Callable[[Job], Job] | None = None
    ) -> Generated:
        service, parent = self.service, self.order.task
        options = self.server_options.overlay(request.override_settings or {})
        order = replace(self.order, request=request, options=options)
        draft = await service.draft(order)
        self.warnings.update(dict.fromkeys(draft.warnings))
        if change is not None:
            draft = replace(draft, job=change(draft.job))
        inner = service.tasks.create_inner(parent)
        inner.job = draft.job
        try:
            result = await service.drawn(inner)
        except TaskCancelled:
            if parent.state is not State.RUNNING:
                raise
            result = Result((), {}, interrupted=True)
        except asyncio.CancelledError:
            service.tasks.cancel(inner)
            raise
        self.warnings.update(dict.fromkeys(result.warnings))
        result = await service.finished(order, draft, result)
        return Generated(result, await service.info(order, draft, result))


async def run_script(runs: InnerRuns) -> ScriptResult:
    """Let the order's script draw; its task ends with it."""
    selected = runs.order.scripts.selected
    assert selected is not None
    script, args = selected
    error: BaseException | None = None
    try:
        return await script.run(runs, args)
    except BaseException as raised:
        error = raised
        raise
    finally:
        runs.service.tasks.end(runs.order.task, error)


def script_answer(
    order: Order, result: ScriptResult, folders: OutputFolders, server_options: Options
) -> dict[str, Any]:
    """Write a script's files if the request asks for it, and make the answer. Blocks."""
    request, options = order.request, order.options
    if request.save_images and result.info is not None:
        for each in result.files:
            if options.flag("grid_save" if each.is_grid else "samples_save"):
                folders.save_script_file(order.kind, each, result.info)
    encoding = server_options.overlay({"enable_pnginfo": options.flag("enable_pnginfo")})
    fmt = server_options.text("samples_format") or "png"
    images = [
        codecs.to_base64(codecs.encode(each.image, fmt, each.infotext, encoding))
        for each in (result.pictures if request.send_images else ())
    ]
    info = "{}"
    if result.info is not None:
        info = result.info.to_json(
            list(result.infotexts), result.index_of_first_image, result.changes
        )
    return {"images": images, "info": info}


def script_urls(
    order: Order, result: ScriptResult, save_dir: url_mode.SaveDir
) -> tuple[list[str], list[int]]:
    """Write a script's pictures for URL mode; their paths and seeds. Blocks."""
    named = [
        url_mode.NamedImage(
            f"{order.kind}-images", url_mode.image_stem(each.seed), each.image, each.infotext or ""
        )
        for each in result.pictures
    ]
    return url_mode.write_all(save_dir, named), [each.seed for each in result.pictures]
