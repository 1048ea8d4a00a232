"""The inner generations of a request that chose a script.

Contract: webui-api 6.3, webui-scripts 1.3.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from sdapi.engine.jobs.job import Job, Result
from sdapi.engine.upscaling.upscaler import Upscaler
from sdapi.errors import QueueFull, TaskCancelled
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.generation.answering import url_mode
from sdapi.services.generation.answering.url_names import maps_for_urls
from sdapi.services.generation.drafting.draft import Draft
from sdapi.services.generation.drafting.drafting import Drafting
from sdapi.services.generation.drafting.request_limits import counts
from sdapi.services.generation.drawing import Drawing
from sdapi.services.generation.order import Order
from sdapi.services.generation.pictures.device_upscaling import DeviceUpscaling
from sdapi.services.generation.saving.saving import Saving
from sdapi.services.generation.telling.telling import Telling
from sdapi.services.jobs.tasks import State
from sdapi.services.scripts.registry import CalledScripts
from sdapi.services.scripts.script import (
    Generated,
    GenerationRequest,
    Kind,
    ScriptResult,
)

if TYPE_CHECKING:
    from sdapi.services.container import Services
    from sdapi.services.generation.telling.generation_info import GenerationInfo

#: how long a script waits for preprocessors that others keep busy
_PATIENCE_S = 600.0
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Tools:
    """The steps from an order to its pictures, for plain requests and inner generations alike."""

    drafting: Drafting
    drawing: Drawing
    saving: Saving
    telling: Telling


@dataclass(slots=True)
class InnerRuns:
    """Runs the inner generations of one order: what its script sees of the server."""

    services: "Services"
    tools: Tools
    order: Order
    #: sentences for the answer, once each
    warnings: dict[str, None] = field(default_factory=dict[str, None])
    #: for URL mode: the maps that ControlNet units detected
    map_files: list[url_mode.NamedImage] = field(default_factory=list[url_mode.NamedImage])

    async def open(self) -> None:
        """Make the order what scripts may copy: EAS keys become fields, pictures are decoded.

        Raises `SDAPIError`.
        """
        request, eas = self.order.request, self.order.eas
        counts(request)
        saves = request.save_images and eas.save_dir is None
        fills: dict[str, Any] = {"do_not_save_samples": not saves, "do_not_save_grid": not saves}
        overrides: dict[str, Any] = {}
        if eas.sd_model_checkpoint is not None:
            overrides["sd_model_checkpoint"] = eas.sd_model_checkpoint
        if eas.sd_vae is not None:
            overrides |= {"sd_vae": eas.sd_vae, "sd_vae_overrides_per_model_preferences": True}
        if overrides:
            fills["override_settings"] = (request.override_settings or {}) | overrides
        if isinstance(request, Img2ImgRequest):
            inputs = await self.services.images.inputs(request, eas.image_link, self.options)
            fills |= {"init_images": list(inputs.images), "mask": inputs.mask}
        self.order = replace(
            self.order,
            request=request.model_copy(update=fills),
            eas=replace(eas, sd_model_checkpoint=None, sd_vae=None, image_link=None),
        )

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
    def is_interrupted(self) -> bool:
        task = self.order.task
        is_set = task.monitor.interrupted.is_set()
        task.is_cut |= is_set  # whoever asks leaves out what was to come
        return is_set

    @property
    def is_skipped(self) -> bool:
        return self.order.task.monitor.skipped.is_set()

    def plan(self, passes: int) -> None:
        self.order.task.monitor.plan(passes)

    def warn(self, text: str) -> None:
        self.warnings[text] = None

    async def load_image(self, source: Any, field: str) -> Image:
        return await self.services.images.load(source, self.order.options, field=field)

    def texts(self, request: GenerationRequest) -> tuple[str, str]:
        order = self._inner_order(request)
        return self.tools.drafting.builder(order).texts(request, order.options)

    async def check(self, request: GenerationRequest) -> None:
        await self.tools.drafting.draft(self._bare_order(request))

    async def outline(self, request: GenerationRequest) -> "GenerationInfo":
        order = self._bare_order(request)
        draft = await self.tools.drafting.draft(order)
        return await self.tools.telling.info(order, draft, Result((), {}))

    async def generate(
        self,
        request: GenerationRequest,
        *,
        change: Callable[[Job], Job] | None = None,
        keys: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        colours: Image | None = None,
    ) -> Generated:
        tools, order = self.tools, self._inner_order(request)
        draft = await self._draft(order)
        self.warnings.update(dict.fromkeys(draft.warnings))
        if change is not None:
            draft = replace(draft, job=change(draft.job))
        if keys is not None:
            draft = replace(draft, keys=keys(draft.keys))
        if colours is not None:
            draft = _with_colours(draft, colours)
        result = await self._drawn(draft.job)
        result = await tools.saving.finished(order, draft, result)
        info = await tools.telling.info(order, draft, result)
        if order.place is not None:
            self.map_files += maps_for_urls(result, info)
        kept, pending = await tools.saving.keep(
            self.kind,
            result,
            info,
            samples=not request.do_not_save_samples,
            grid=not request.do_not_save_grid,
        )
        self.warnings.update(dict.fromkeys(pending))
        return Generated(result, info, kept.grid)

    async def _draft(self, order: Order) -> Draft:
        """As for any request, but wait for what is busy: what was drawn so far would be lost."""
        given_up = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return await self.tools.drafting.draft(order)
            except QueueFull:
                if self.is_interrupted or time.monotonic() > given_up:
                    raise
                await asyncio.sleep(_RETRY_S)

    async def upscale(self, image: Image, upscaler: Upscaler, factor: float) -> Image:
        drawing = self.tools.drawing
        on_device = DeviceUpscaling(drawing.tasks, drawing.drawn, self.order.task)
        return await on_device.enlarged(upscaler, image, factor)

    def _inner_order(self, request: GenerationRequest) -> Order:
        options = self.order.plain_options.overlay(request.override_settings or {})
        return replace(self.order, request=request, options=options)

    def _bare_order(self, request: GenerationRequest) -> Order:
        """Without always-on scripts, whose preparation may take seconds."""
        return replace(self._inner_order(request), scripts=CalledScripts((), None))

    async def _drawn(self, job: Job) -> Result:
        """Queue a job under the order's task; no pictures when that is interrupted before it."""
        drawing, parent = self.tools.drawing, self.order.task
        inner = drawing.tasks.create_inner(parent)
        inner.job = job
        try:
            result = await drawing.drawn(inner)
        except TaskCancelled:
            if parent.state is not State.RUNNING:
                raise
            return Result((), {}, interrupted=True)
        except asyncio.CancelledError:
            drawing.tasks.cancel(inner)
            raise
        self.warnings.update(dict.fromkeys(result.warnings))
        return result


def _with_colours(draft: Draft, colours: Image) -> Draft:
    """A draft whose pictures are corrected towards others than its init images."""
    if draft.prepared is None or not draft.prepared.finish.colours:
        return draft
    finish = replace(draft.prepared.finish, colours=(colours,))
    return replace(draft, prepared=replace(draft.prepared, finish=finish))


async def run_script(runs: InnerRuns) -> ScriptResult:
    """Let the order's script draw; then all of its task is drawn."""
    selected = runs.order.scripts.selected
    assert selected is not None
    script, args = selected
    error: BaseException | None = None
    try:
        with runs.services.scheduler.place(runs.order.task):
            await runs.open()
        return await script.run(runs, args)
    except BaseException as raised:
        error = raised
        raise
    finally:
        runs.tools.drawing.tasks.all_drawn(runs.order.task, error)
