"""All of the queue in one server: store, services, and a dispatcher for each that works here."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

import orjson
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from sdapi.errors import FINAL_HEADER, SDAPIError
from sdapi.queue.config.spec import Program, ServiceSpec
from sdapi.queue.dispatching.dispatcher import Dispatcher
from sdapi.queue.dispatching.inference import Answer, Call, Inference
from sdapi.queue.dispatching.on_port import OnPort
from sdapi.queue.service import QueueService
from sdapi.queue.stores.redis.store import RedisStore
from sdapi.queue.stores.sqlite.store import DatabaseInUse, SqliteStore
from sdapi.queue.stores.store import Store
from sdapi.settings import Settings

log = logging.getLogger(__name__)

MakeInference = Callable[[ServiceSpec], Inference]


class NotHere:
    """Stands for a program of ours that this server does not have."""

    def __init__(self, program: Program) -> None:
        self._problem = f"this server has no program {program.value}"

    async def is_ready(self) -> bool:
        return True

    async def call(self, call: Call) -> Answer:
        body = orjson.dumps({"error": self._problem})
        return Answer(501, body, "application/json", {FINAL_HEADER: "true"})

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(self._problem, 503)(scope, receive, send)

    async def close(self) -> None:
        """There is nothing to end."""


def make_store(settings: Settings, *, is_server: bool = True) -> Store:
    """Redis where `--queue-url` says so, else SQLite in the data directory."""
    if settings.queue_url is not None:
        return RedisStore(settings.queue_url)
    return SqliteStore(settings.state_file, is_server=is_server)


class QueueServer:
    """Opened and closed with the application.

    `programs` makes those that run in this process, for each service one; others are called on
    their ports.
    """

    def __init__(
        self,
        settings: Settings,
        specs: Sequence[ServiceSpec],
        programs: Mapping[Program, MakeInference],
    ) -> None:
        self.service = QueueService(make_store(settings), specs)
        self._is_asked_for = bool(settings.services or settings.service_files)
        self.inferences = {
            spec.name: programs.get(spec.container.program, _elsewhere)(spec) for spec in specs
        }
        self._idle = [spec.name for spec in specs if spec.is_async and not spec.instances]
        works_here = settings.role != "api"
        self.dispatchers = [
            Dispatcher(self.service, spec, self.inferences[spec.name])
            for spec in specs
            if spec.is_async and works_here
            for _ in range(spec.instances)
        ]

    async def open(self) -> None:
        """Connect, and start to work.

        Two servers on one data directory are usual where each has a device; the second one then
        serves everything but the queue, unless it was told of services.
        """
        try:
            await self.service.open()
        except DatabaseInUse as error:
            if self._is_asked_for:
                raise
            log.warning("this server has no queue: %s", error)
            return
        for name in self._idle:
            log.warning("service %s: metadata.instance is 0, so its items wait", name)
        for dispatcher in self.dispatchers:
            dispatcher.start()

    async def close(self) -> None:
        """Give back what runs, then disconnect."""
        await asyncio.gather(*(each.close() for each in self.dispatchers))
        await self.service.close()
        await asyncio.gather(*(each.close() for each in self.inferences.values()))

    async def drain(self) -> None:
        """Take nothing more, and let finish what runs."""
        await asyncio.gather(*(each.drain() for each in self.dispatchers))

    def abandon(self) -> None:
        """Stop what runs; it goes back into its queue."""
        for dispatcher in self.dispatchers:
            dispatcher.abandon()

    async def is_reachable(self) -> bool:
        """Whether the store answers."""
        try:
            await self.service.store.beats()
        except SDAPIError:
            return False
        return True


def _elsewhere(spec: ServiceSpec) -> Inference:
    program = spec.container.program
    return OnPort(spec) if program is Program.OTHER else NotHere(program)
