"""An order -> its job, with what the answer tells of it. Bad input fails here."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import anyio.to_thread
from PIL import Image

from sdapi.engine.jobs.job import Result
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.catalog.object_models import FetchedModels, NotFetched
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.drafting.draft import Draft
from sdapi.services.generation.drafting.job_builder import JobBuilder
from sdapi.services.generation.order import Order
from sdapi.services.generation.pictures.device_upscaling import DeviceUpscaling
from sdapi.services.generation.pictures.img2img import InitInputs
from sdapi.services.generation.pictures.soft_inpainting import soft_inpainting
from sdapi.services.jobs.tasks import Task
from sdapi.services.scripts.always_on import prepare_job
from sdapi.services.scripts.script import Preparation

if TYPE_CHECKING:
    from sdapi.services.container import Services


@dataclass(frozen=True, slots=True)
class Drafting:
    """Makes jobs, in threads that may wait for a device: a model may enlarge pictures meanwhile."""

    #: what always-on scripts may use
    services: "Services"
    #: queues a task that has its job, and waits for the result
    drawn: Callable[[Task], Awaitable[Result]]
    limiter: anyio.CapacityLimiter

    async def draft(self, order: Order) -> Draft:
        """The job of an order, with what its answer needs; raises `SDAPIError` for bad input."""
        request, options, eas = order.request, order.options, order.eas
        images = self.services.images
        inputs = None
        if isinstance(request, Img2ImgRequest):
            inputs = await images.inputs(request, eas.image_link, options)
            inputs = replace(inputs, soft=soft_inpainting(order.scripts))
        first_picture = None
        if isinstance(request, Txt2ImgRequest) and request.enable_hr and request.firstpass_image:
            first_picture = await images.first_picture(request, options)
        objects = FetchedModels()
        builder = replace(self.builder(order), objects=objects)

        def build() -> Draft | NotFetched:
            try:
                made = builder.build(order.task.id, request, options, eas, inputs, first_picture)
            except NotFetched as needed:
                return needed
            made = self._with_scripts(order, made, inputs)
            if not self.services.settings.no_hashing:
                self._begin_hashing(made)
            return made

        # A model of an object store takes minutes, which no thread of those and no place waits for.
        while True:
            made = await anyio.to_thread.run_sync(build, limiter=self.limiter)
            if isinstance(made, Draft):
                return made
            with self.services.scheduler.aside(order.task):
                await self.services.objects.fetch(objects, made, lambda: order.task.is_wanted)
            order.task.files |= objects.paths

    def builder(self, order: Order) -> JobBuilder:
        """What makes jobs of an order's requests."""
        services = self.services
        on_device = DeviceUpscaling(services.tasks, self.drawn, order.task)
        return JobBuilder(
            services.catalog,
            order.styles,
            services.networks,
            Upscalers(services.settings),
            on_device.function_of,
        )

    def _with_scripts(self, order: Order, draft: Draft, inputs: InitInputs | None) -> Draft:
        """Let the always-on scripts prepare a job. In a worker thread of anyio's."""

        def load_image(text: str, field: str) -> Image.Image:
            load = partial(self.services.images.load, text, order.options, field=field)
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

    def _begin_hashing(self, draft: Draft) -> None:
        """Have the hashes that its answer tells known by the time it is drawn. Blocks."""
        networks = self.services.networks
        if draft.checkpoint.path.is_file():
            self.services.hashes.compute(draft.checkpoint.path)
        for lora in draft.loras.values():
            if networks.shorthash(lora) is None:
                networks.hashes.compute(lora.path)
