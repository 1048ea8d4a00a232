"""The application: services, routes, and what every request passes through."""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from sdapi import __version__
from sdapi.extensions.loader import Extensions
from sdapi.middleware.body_limit import BodyLimit
from sdapi.middleware.cross_origin import CrossOrigin
from sdapi.middleware.gate import Gate
from sdapi.middleware.request_log import RequestLog
from sdapi.portrait.creation.drawing.address import elsewhere
from sdapi.portrait.portrait import Portrait
from sdapi.portrait.surfaces import description as portrait_description
from sdapi.portrait.surfaces.queue_services import CREATE, USEFUL_SINK_BYTES
from sdapi.portrait.surfaces.routes import SIGNED_PREFIXES, portrait_router
from sdapi.problems import install_handlers
from sdapi.queue.config.service_config import PORTRAIT_SERVICES, load_services
from sdapi.queue.config.spec import Program, ServiceSpec
from sdapi.queue.dispatching.in_process import InProcess
from sdapi.queue.server import MakeInference, QueueServer
from sdapi.routes import catalog, extras, generation, networks, options, progress, tasks, upscaling
from sdapi.routes import scripts as scripts_route
from sdapi.routes.page import cards, gradio, index, internal
from sdapi.routes.queue import description as queue_description
from sdapi.routes.queue import discovery
from sdapi.routes.queue.calls import Served, text_error
from sdapi.routes.queue.entrance import QueueEntrance, is_of_queue
from sdapi.routes.system import docs, health, openapi, server
from sdapi.routes.system.api_description import DESCRIPTION, TAGS
from sdapi.services.container import Services
from sdapi.services.jobs.worker import EngineMaker, TorchEngines
from sdapi.services.scripts.registry import Scripts
from sdapi.services.storage.places import with_named_mounts
from sdapi.services.system.readiness import unusable
from sdapi.serving.lifecycle import Lifecycle, lifespan
from sdapi.settings import Settings

log = logging.getLogger(__name__)


class Application(FastAPI):
    """FastAPI, but for the queues' addresses, which are answered before its own layers begin."""

    queue_entrance: ASGIApp | None = None
    #: operations that are answered elsewhere, for the description
    further_paths: tuple[dict[str, Any], ...] = ()

    def openapi(self) -> dict[str, Any]:
        """As FastAPI's, with the calls that other layers answer."""
        if self.openapi_schema is None:
            made = super().openapi()
            openapi.tell_unreadable_bodies(made)
            openapi.add_paths(made, self.further_paths)
        return super().openapi()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.queue_entrance is not None and is_of_queue(scope):
            scope["app"] = self
            await self.queue_entrance(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def build_app(
    settings: Settings,
    engines: EngineMaker | None = None,
    environ: Mapping[str, str] = os.environ,
) -> FastAPI:
    """The whole server as an ASGI application; torch is imported later, by the workers.

    `engines` replaces what draws, for tests. `environ` has the keys of object stores.
    """
    settings = with_named_mounts(settings)
    extensions = Extensions.load(
        settings.data_dir / "extensions", wants_others=not settings.disable_extensions
    )
    scripts = Scripts(extensions.scripts())
    services = Services.build(settings, engines or TorchEngines(), scripts, environ)
    specs = load_services(settings)
    portrait = _portrait(settings, services, specs) if settings.portrait else None
    services.annotators.faces = None if portrait is None else portrait.faces

    app = _bare_app()
    webui = InProcess(app, lambda: services.is_ready, partial(unusable, services))
    programs: dict[Program, MakeInference] = {Program.WEBUI: lambda spec: webui}
    if portrait is not None:
        programs |= _portrait_programs(portrait)
    queues = QueueServer(settings, specs, programs)
    Lifecycle(services, portrait, queues).attach(app)
    for router in (*_routers(settings), *extensions.routers(services)):
        app.include_router(router)
    if portrait is not None:
        app.include_router(portrait_router(portrait))
        app.further_paths += (portrait_description.PATHS,)
    services.extensions = tuple(extensions.loaded)
    docs.mount_assets(app)
    install_handlers(app)
    _add_middleware(app, settings, services)
    if settings.role != "worker":
        app.queue_entrance = _queue_entrance(app, settings, services, queues)
        app.further_paths += (queue_description.PATHS,)
    return app


def _bare_app() -> Application:
    """An application without routes."""
    return Application(
        title="sdapi",
        version=__version__,
        description=DESCRIPTION,
        openapi_tags=[*TAGS, queue_description.TAG, portrait_description.TAG],
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )


def _add_middleware(app: FastAPI, settings: Settings, services: Services) -> None:
    """What every request passes through; the last one added is the first."""
    app.add_middleware(BodyLimit, limit_bytes=settings.max_body_bytes)
    app.add_middleware(
        Gate, credentials=services.credentials, state=app.state, signed=SIGNED_PREFIXES
    )
    app.add_middleware(CrossOrigin, **_cross_origin(settings))
    app.add_middleware(RequestLog, prints=settings.api_log, metrics=services.metrics)


def _queue_entrance(
    app: FastAPI, settings: Settings, services: Services, queues: QueueServer
) -> ASGIApp:
    """The queues with the same around them but the gate: they look at credentials themselves."""
    served = Served(
        queues, services.credentials, settings.queue_hold_s, lambda: app.state.is_stopping
    )
    limited = BodyLimit(
        QueueEntrance(served),
        limit_bytes=settings.max_body_bytes,
        answer=lambda error, _: text_error(error),
    )
    open_to_pages = CrossOrigin(limited, **_cross_origin(settings))
    return RequestLog(open_to_pages, prints=settings.api_log, metrics=services.metrics)


def _cross_origin(settings: Settings) -> dict[str, Any]:
    """Which pages of other origins may call."""
    return {
        "allow_origins": list(settings.cors_origins),
        "allow_origin_regex": settings.cors_origins_regex,
        "allow_methods": ["*"],
        "allow_headers": ["*"],
        "allow_credentials": True,
    }


def _portrait(settings: Settings, services: Services, specs: Sequence[ServiceSpec]) -> Portrait:
    """The portrait, drawn here unless the settings or its service's variables say elsewhere."""
    spec = next((s for s in specs if s.container.program is Program.PORTRAIT_INFER), None)
    variables = dict(spec.container.env) if spec is not None else {}
    drawn_at = elsewhere(
        settings.portrait_url or variables.get("URL"),
        settings.portrait_authorization or variables.get("AUTHORIZATION"),
        {settings.port, *(each.port for each in (spec.containers if spec else ()))},
    )
    return Portrait.build(settings, services=services, drawn_at=drawn_at)


def _portrait_programs(portrait: Portrait) -> dict[Program, MakeInference]:
    """What the queue calls for its portrait services, for each with the size of its own sink."""

    def made(name: str, spec: ServiceSpec) -> InProcess:
        sink_bytes = spec.sink.max_payload_bytes
        if name == CREATE and sink_bytes < USEFUL_SINK_BYTES:
            log.warning(
                "%s: its output queue takes %d bytes, too few for most portraits; raise "
                "queue.sink.max_payload_size_kb in its service file (20480 is usual)",
                *(spec.name, sink_bytes),
            )
        return InProcess(portrait.queue_services.app(name, sink_bytes), lambda: True)

    return {program: partial(made, name) for name, program in PORTRAIT_SERVICES.items()}


def _routers(settings: Settings) -> list[APIRouter]:
    """The routes that flags allow."""
    routers = [
        generation.router,
        extras.router,
        upscaling.router,
        catalog.router,
        networks.router,
        options.router,
        tasks.router,
        progress.router,
        scripts_route.router,
        server.router,
        health.router,
        docs.router,
    ]
    if settings.role != "worker":
        routers.append(discovery.router)
    if settings.api_server_stop:
        routers.append(server.stop_router)
    if settings.webui:
        routers += [index.router, internal.router, gradio.router, cards.router]
    return routers
