"""Passes that another server of this project draws."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sdapi.app import build_app
from sdapi.portrait.creation.drawing.passes import Pass
from sdapi.portrait.creation.drawing.remote import RemoteDrawer
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import listening, wait_ready

pytestmark = pytest.mark.anyio
PASS = Pass("a man", "", (64, 64), 2)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def url(tmp_path: Path, engine: FakeEngine) -> Iterator[str]:
    settings = Settings(data_dir=tmp_path, no_hashing=True)
    app = build_app(settings, FakeEngines(engine))
    with listening(app, settings) as server:
        wait_ready(lambda: app.state.services.is_ready)
        yield server


async def test_a_pass_that_somebody_interrupted_there_is_told(url: str, engine: FakeEngine):
    engine.delay_s = 30
    drawing = asyncio.ensure_future(RemoteDrawer(url, "").draw(PASS))
    assert await asyncio.to_thread(engine.is_running.wait, 10)
    async with httpx.AsyncClient(base_url=url) as client:
        await client.post("/sdapi/v1/interrupt")
        (warning,) = (await drawing).warnings
        assert warning.startswith("interrupted: ")
        engine.delay_s = 0
        whole = await RemoteDrawer(url, "").draw(PASS)
        assert whole.warnings == ()
