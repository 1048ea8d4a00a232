"""What begins and ends with the application, and how it stops without losing work."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI

from sdapi.portrait.portrait import Portrait
from sdapi.queue.server import QueueServer
from sdapi.services.container import Services
from sdapi.services.system.readiness import Readiness, Status, readiness


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The parts of a running server, in the order they begin; they end the other way round."""

    services: Services
    portrait: Portrait | None
    queues: QueueServer

    async def begin(self) -> None:
        """Start what works in the background."""
        self.services.start()
        self.services.storage.start()
        if self.portrait is not None:
            await self.portrait.start()
        await self.queues.open()

    async def end(self) -> None:
        """Stop it."""
        await self.queues.close()
        if self.portrait is not None:
            await self.portrait.close()
        await self.services.storage.close()
        self.services.close()

    async def drain(self) -> None:
        """Take nothing new, and let what runs finish."""
        await asyncio.gather(self.queues.drain(), self.services.drain())

    def interrupt(self) -> None:
        """Let what runs stop within a step."""
        self.queues.abandon()  # first: what is cut short is no result
        self.services.tasks.cut_short()

    def is_busy(self) -> bool:
        """Whether a job runs."""
        return self.services.tasks.running is not None

    async def readiness(self, *, is_stopping: bool) -> Readiness:
        """Whether it can do its work: draw, or with the role `api` reach its queue."""
        if self.services.settings.role != "api":
            return await readiness(self.services, is_stopping=is_stopping)
        if is_stopping:
            return Readiness(Status.STOPPING, {})
        is_reachable = await self.queues.is_reachable()
        return Readiness(Status.READY if is_reachable else Status.STARTING, {})

    def attach(self, app: FastAPI) -> None:
        """Let routes find the parts, and the server that runs the application stop it."""
        state = app.state
        state.lifecycle = self
        state.services, state.queues = self.services, self.queues
        state.drain, state.interrupt, state.is_busy = self.drain, self.interrupt, self.is_busy
        state.end_waits = self.queues.service.end_waits
        state.is_stopping = False

        def begin_shutdown() -> None:
            state.is_stopping = True

        async def now() -> Readiness:
            return await self.readiness(is_stopping=state.is_stopping)

        state.begin_shutdown, state.readiness = begin_shutdown, now


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Begins and ends what was attached to an application."""
    lifecycle: Lifecycle = app.state.lifecycle
    await lifecycle.begin()
    yield
    await lifecycle.end()
