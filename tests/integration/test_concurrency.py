"""Many clients at once: each gets its own picture, from the checkpoint it asked for."""

import base64
import io
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines, colour_of

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 1}
#: requests that cannot work, and the status each deserves
INVALID: list[tuple[dict[str, Any], int]] = [
    ({"steps": "x"}, 422),
    ({"steps": 0}, 422),
    ({"sampler_name": "no"}, 400),
    ({"scheduler": "no"}, 422),
    ({"override_settings": {"sd_model_checkpoint": "no"}}, 422),
    ({"alwayson_scripts": {"save_dir": "/etc"}}, 403),
    ({"alwayson_scripts": {"id_task": 7}}, 422),
    ({"script_name": "no"}, 422),
]


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server", timeout=240) as client,
    ):
        with anyio.fail_after(60):
            while (await client.get("/readyz")).status_code != 200:
                await anyio.sleep(0.02)
        yield client


def pixels(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    (encoded,) = answer.json()["images"]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        return np.asarray(picture)


async def all_at_once(
    client: httpx.AsyncClient, bodies: list[dict[str, Any]]
) -> list[httpx.Response]:
    answers: dict[int, httpx.Response] = {}

    async def ask(index: int) -> None:
        answers[index] = await client.post("/sdapi/v1/txt2img", json=SMALL | bodies[index])

    async with anyio.create_task_group() as group:
        for index in range(len(bodies)):
            group.start_soon(ask, index)
    return [answers[index] for index in range(len(bodies))]


@pytest.mark.anyio
@pytest.mark.parametrize("count", [60, pytest.param(200, marks=pytest.mark.slow)])
async def test_valid_requests_get_their_own_pictures_and_invalid_ones_their_errors(
    tmp_path: Path, count: int
):
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    (folder / "one.safetensors").write_bytes(b"x")
    requests = [({"seed": 1000 + 7919 * n}, 200) for n in range(count // 2)]
    requests += [INVALID[n % len(INVALID)] for n in range(count // 2)]
    random.Random(4).shuffle(requests)
    engine = FakeEngine(delay_s=0.01)
    app = build_app(Settings(data_dir=tmp_path), FakeEngines(engine))
    slowest = 0.0
    async with client_of(app) as client:

        async def watch() -> None:
            nonlocal slowest
            while True:
                began = time.perf_counter()
                assert (await client.get("/sdapi/v1/progress")).status_code == 200
                slowest = max(slowest, time.perf_counter() - began)
                await anyio.sleep(0.02)

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            answers = await all_at_once(client, [body for body, _ in requests])
            group.cancel_scope.cancel()
    for answer, (body, status) in zip(answers, requests, strict=True):
        assert answer.status_code == status, (body, answer.text)
        if status == 200:
            assert tuple(pixels(answer)[0, 0]) == colour_of(body["seed"])
    assert len(engine.jobs) == count // 2
    # A bound for a loop that is blocked, not a measure of speed.
    assert slowest < 5


@pytest.mark.anyio
@pytest.mark.parametrize("count", [20, pytest.param(100, marks=pytest.mark.slow)])
async def test_clients_that_take_turns_get_pictures_of_the_checkpoint_they_asked_for(
    tiny_data_dir: Path, count: int
):
    bodies = [
        {
            "seed": 5 + n // 2,
            "prompt": "a cat",
            "override_settings": {"sd_model_checkpoint": ("tinyA", "tinyB")[n % 2]},
        }
        for n in range(count)
    ]
    settings = Settings(data_dir=tiny_data_dir, ckpt="tinyA")
    async with client_of(build_app(settings)) as client:
        alone = [pixels((await all_at_once(client, [body]))[0]) for body in bodies[:6]]
        together = await all_at_once(client, bodies)
    for n, body in enumerate(bodies):
        name = body["override_settings"]["sd_model_checkpoint"]
        assert f"Model: {name}," in together[n].json()["info"]
    for n, picture in enumerate(alone):
        assert np.array_equal(pixels(together[n]), picture)
        assert not np.array_equal(pixels(together[n]), alone[n ^ 1])


@pytest.mark.anyio
async def test_client_that_goes_away_cancels_its_job_unless_it_named_it(tmp_path: Path):
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    (folder / "one.safetensors").write_bytes(b"x")
    engine = FakeEngine(delay_s=30)
    app = build_app(Settings(data_dir=tmp_path), FakeEngines(engine))
    tasks = app.state.services.tasks
    async with app.router.lifespan_context(app):
        for eas, stops in (({}, True), ({"id_task": "named"}, False)):
            await leave_when_running(app, engine, SMALL | {"alwayson_scripts": eas})
            running = tasks.running
            if stops:
                with anyio.fail_after(5):
                    while tasks.running is not None:
                        await anyio.sleep(0.01)
            else:
                await anyio.sleep(0.2)
                assert running is not None
                assert not running.monitor.interrupted.is_set()
                tasks.cancel(running)


async def leave_when_running(app: FastAPI, engine: FakeEngine, body: dict[str, Any]) -> None:
    """Send a request and close the connection once its job runs."""
    sent = False
    content = httpx.Request("POST", "http://server", json=body).content

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}
        while not engine.is_running.is_set():
            await anyio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        pass

    path = "/sdapi/v1/txt2img"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("test", 1),
        "server": ("server", 80),
    }
    with anyio.move_on_after(2):
        await app(scope, receive, send)  # pyright: ignore[reportArgumentType]
