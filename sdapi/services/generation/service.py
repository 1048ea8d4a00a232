"""txt2img and img2img: request -> job -> result -> answer."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from sdapi.engine.jobs.job import Result
from sdapi.errors import BadRequest
from sdapi.logs import log_fields
from sdapi.object_url import is_object_url
from sdapi.options import Options
from sdapi.services.generation.answering.answering import Answering
from sdapi.services.generation.drafting.draft import Draft
from sdapi.services.generation.drafting.drafting import Drafting
from sdapi.services.generation.drafting.request_limits import check_formats
from sdapi.services.generation.drawing import Drawing
from sdapi.services.generation.inner_runs import InnerRuns, Tools, run_script
from sdapi.services.generation.intake import Intake
from sdapi.services.generation.option_trial import OptionTrial
from sdapi.services.generation.order import Caller, Order
from sdapi.services.generation.saving.image_files import ImageFiles
from sdapi.services.generation.saving.saving import Saving
from sdapi.services.generation.telling.telling import Telling
from sdapi.services.jobs.telling.cut_short import (
    INTERRUPTED,
    WARNING,
    stopped,
    told_of_interrupt,
    told_of_stop,
)
from sdapi.services.scripts.script import GenerationRequest, Kind

if TYPE_CHECKING:
    from sdapi.services.container import Services

#: Requests that are prepared, or finished, at a time; models may work for them meanwhile.
_MOST_PREPARING = 64


class GenerationService:
    """Runs requests from start to answer. Everything slow happens off the event loop."""

    def __init__(self, services: "Services") -> None:
        self._services = services
        # Threads that may wait for a device, and so are not those that everything else needs.
        limiter = anyio.CapacityLimiter(_MOST_PREPARING)
        settings, storage = services.settings, services.storage
        drawing = Drawing(services.tasks, services.scheduler)
        self._tools = Tools(
            Drafting(services, drawing.drawn, limiter),
            drawing,
            Saving(settings, storage, ImageFiles(storage.names_beside), limiter),
            Telling(
                settings, services.catalog, services.hashes, services.networks, services.metrics
            ),
        )
        self._answering = Answering(services.options, self._tools.saving)

    async def answer(
        self, kind: Kind, request: GenerationRequest, caller: Caller
    ) -> dict[str, Any]:
        """The answer to a request, as the webui or, with a `save_dir`, as URL mode gives it.

        Raises `SDAPIError`; in URL mode the route turns it into that mode's shape.
        """
        started, services = time.perf_counter(), self._services
        if caller.webhook is not None:
            await services.webhooks.check(caller.webhook)
        options = services.options.current
        asked = await anyio.to_thread.run_sync(self._intake().read, kind, request, options)
        id_task = asked.eas.id_task or asked.request.force_task_id
        task = services.tasks.create(kind, id_task, asked.eas.uid, awaits_end=True)
        order = Order.of(asked, caller, task)
        with log_fields(task_id=task.id, uid=task.uid):
            error: BaseException | None = None
            try:
                if order.scripts.selected is not None:
                    return await self._script_answer(order, started)
                return await self._plain_answer(order, started)
            except BaseException as raised:
                error = raised
                raise
            finally:
                services.tasks.end(task, error)
                if caller.webhook is not None:
                    services.webhooks.tell(task, caller.webhook)

    def check_options(self, options: Options) -> None:
        """Raise the `SDAPIError` that every plain request would get with these. Blocks."""
        OptionTrial(self._services, self._intake).check(options)

    def _intake(self) -> Intake:
        services = self._services
        return Intake(
            services.settings,
            services.networks,
            services.scripts,
            services.storage,
            self._tools.saving.folders(),
        )

    async def _plain_answer(self, order: Order, started: float) -> dict[str, Any]:
        tools = self._tools
        work = self._drawn_in_parts if order.needs_device_before else self._drawn_at_once
        draft, result = await tools.drawing.outcome(order, asyncio.ensure_future(work(order)))
        result = told_of_stop(order.task, result, wants_whole=order.caller.wants_whole)
        if order.tells_interrupt:
            result = told_of_interrupt(order.task, result)
        info = await tools.telling.info(order, draft, result)
        drawn_at = time.perf_counter()
        answer = await self._answering.plain(order, result, info, draft.warnings, started)
        tools.telling.times(order.task, result, started, drawn_at)
        return answer

    async def _drawn_at_once(self, order: Order) -> tuple[Draft, Result]:
        """An order's job, and its result with the pictures finished."""
        tools = self._tools
        try:
            with self._services.scheduler.place(order.task):
                draft = await tools.drafting.draft(order)
            order.task.on_done = self._on_done(order)
            order.task.job = draft.job
        except BaseException as error:
            tools.drawing.tasks.refuse(order.task, error)
            raise
        result = await tools.drawing.drawn(order.task)
        return draft, await tools.saving.finished(order, draft, result)

    async def _drawn_in_parts(self, order: Order) -> tuple[Draft, Result]:
        """The same, of several jobs: before and after the drawing a model enlarges pictures."""
        tools, tasks = self._tools, self._services.tasks
        error: BaseException | None = None
        try:
            with self._services.scheduler.place(order.task):
                draft = await tools.drafting.draft(order)
            inner = tasks.create_inner(order.task)
            inner.job, inner.on_done = draft.job, self._on_done(order)
            result = await tools.drawing.drawn(inner)
            result = await tools.saving.finished(order, draft, result)
            # perhaps while finished pictures were enlarged
            is_stopped = order.task.is_cut_short and order.task.is_cut
            return draft, replace(result, interrupted=result.interrupted or is_stopped)
        except BaseException as raised:
            error = raised
            raise
        finally:
            tasks.all_drawn(order.task, error)

    async def _script_answer(self, order: Order, started: float) -> dict[str, Any]:
        tools = self._tools
        try:
            keep_options = self._on_done(order)
        except BaseException as error:
            tools.drawing.tasks.refuse(order.task, error)
            raise
        runs = InnerRuns(self._services, tools, order)
        result = await tools.drawing.outcome(order, asyncio.ensure_future(run_script(runs)))
        if order.task.is_cut_short and order.task.is_cut:
            if order.caller.wants_whole or not result.pictures:
                raise stopped()
            runs.warn(WARNING)
        elif order.task.is_cut and order.tells_interrupt:
            runs.warn(INTERRUPTED)
        if keep_options is not None:
            keep_options()
        return await self._answering.of_script(order, runs, result, started)

    def _on_done(self, order: Order) -> Callable[[], None] | None:
        """What writes a request's options into the server's once its job has succeeded.

        Raises `BadRequest` where that may not be.
        """
        request, services = order.request, self._services
        if not request.override_settings or request.override_settings_restore_afterwards:
            return None
        if services.settings.freeze_settings:
            raise BadRequest("override_settings_restore_afterwards: changing settings is disabled")
        overrides = dict(request.override_settings)
        for key in ("sd_model_checkpoint", "sd_vae"):
            if is_object_url(str(overrides.get(key, ""))):
                raise BadRequest(
                    f"override_settings_restore_afterwards: {key} {overrides[key]} is an object of "
                    "one request; the server's own is a file below its models folder"
                )
        check_formats(services.options.current.overlay(overrides))
        return lambda: services.options.change(overrides)
