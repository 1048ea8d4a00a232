"""What a dispatcher does when its server stops."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from sdapi.queue.config.service_config import load_services
from sdapi.queue.config.spec import ServiceSpec
from sdapi.queue.dispatching import dispatcher as dispatching
from sdapi.queue.dispatching.dispatcher import Dispatcher
from sdapi.queue.dispatching.inference import Answer, Call
from sdapi.queue.service import QueueService
from sdapi.queue.stores.sqlite.store import SqliteStore
from sdapi.queue.stores.store import QueueName, QueueStoreUnavailable, Taken
from sdapi.settings import Settings
from tests.queues.store_calls import SINK, SOURCE, put_all, texts

pytestmark = pytest.mark.anyio


class TroubledStore(SqliteStore):
    """A store that does not take the first words that a consumer stops."""

    troubles: list[Exception]
    takes = 0

    async def take(self, *given: Any, **named: Any) -> Taken:
        self.takes += 1
        return await super().take(*given, **named)

    async def reject(
        self, queue: QueueName, group: str, user: str, indexes: Sequence[int], *, retire: bool
    ) -> None:
        if self.troubles:
            raise self.troubles.pop()
        await super().reject(queue, group, user, indexes, retire=retire)


class SlowProgram:
    """Answers when it may."""

    def __init__(self) -> None:
        self.is_called, self.may_answer = asyncio.Event(), asyncio.Event()

    async def is_ready(self) -> bool:
        return True

    async def call(self, call: Call) -> Answer:
        self.is_called.set()
        await self.may_answer.wait()
        return Answer(200, b"result", "text/plain", {})

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("this is a service with a queue")

    async def close(self) -> None:
        """There is nothing to end."""


@pytest.fixture
def spec(tmp_path: Path) -> ServiceSpec:
    specs = load_services(Settings(data_dir=tmp_path, services=("svc",)))
    [spec] = [each for each in specs if each.name == "svc"]
    return spec


@pytest.fixture
async def store(tmp_path: Path) -> TroubledStore:
    """Open where there is a `service`."""
    store = TroubledStore(tmp_path / "sdapi.db")
    store.troubles = []
    return store


@pytest.fixture
async def service(store: TroubledStore, spec: ServiceSpec) -> AsyncIterator[QueueService]:
    service = QueueService(store, [spec])
    await service.open()
    yield service
    await service.close()


@pytest.mark.parametrize("trouble", [None, QueueStoreUnavailable("away"), RuntimeError("odd")])
async def test_a_stop_waits_for_what_runs_and_takes_nothing_more_whatever_the_store_does(
    store: TroubledStore,
    service: QueueService,
    spec: ServiceSpec,
    trouble: Exception | None,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(dispatching, "_RETRY_S", 0.05)
    program = SlowProgram()
    dispatcher = Dispatcher(service, spec, program)
    await put_all(store, "a", "b", "c")
    dispatcher.start()
    await asyncio.wait_for(program.is_called.wait(), 5)
    store.troubles = [] if trouble is None else [trouble]
    draining = asyncio.create_task(dispatcher.drain())
    await asyncio.sleep(0.5)
    assert not draining.done()
    takes = store.takes
    program.may_answer.set()
    await asyncio.wait_for(draining, 5)
    await asyncio.sleep(0.2)
    assert store.takes <= takes + 3
    assert await texts(store, SINK) == ["result"]
    assert await texts(store, SOURCE) == ["b", "c"]
    await dispatcher.close()
