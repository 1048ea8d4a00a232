"""A queue that is full refuses requests before their pictures are fetched or decoded."""

import base64
import http.server
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.fakes import FakeEngine
from tests.servers import wait_ready

SMALL = {"width": 64, "height": 64, "steps": 1}


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64)).save(data, "PNG")
    return data.getvalue()


@dataclass
class SlowServer:
    """Gives a picture to everyone who asks, once it is opened."""

    url: str = ""
    opened: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list[str])


@pytest.fixture
def pictures() -> Iterator[SlowServer]:
    slow, data = SlowServer(), png()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            slow.asked.append(self.path)
            slow.opened.wait(20)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        slow.url = f"http://127.0.0.1:{server.server_port}/picture"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield slow
        finally:
            slow.opened.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def full(serve: Serve, engine: FakeEngine) -> Iterator[TestClient]:
    """A server with a job that runs and one that waits, which is its limit."""
    client = serve(queue_limit=1)
    engine.delay_s = 30
    with ThreadPoolExecutor(2) as threads:
        for name in ("one", "two"):
            body = SMALL | {"force_task_id": name}
            threads.submit(client.post, "/sdapi/v1/txt2img", json=body)
            wait_ready(lambda name=name: is_known(client, name), 10)
        yield client
        for name in ("two", "one"):
            client.post("/sdapi/v1/interrupt", params={"id_task": name})


def is_known(client: TestClient, name: str) -> bool:
    told = client.get("/sdapi/v1/task", params={"id_task": name}).json()
    return told.get("state") == "running" or told.get("queue_position") == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("img2img", {"init_images": ["no picture"]}),
        ("img2img", {"init_images": ["no picture"], "script_name": "loopback", "script_args": []}),
        ("extra-single-image", {"image": "no picture", "upscaler_1": "Lanczos"}),
    ],
)
def test_a_full_queue_is_told_before_a_picture_is_looked_at(
    full: TestClient, path: str, body: dict[str, Any]
):
    refused = full.post(f"/sdapi/v1/{path}", json=SMALL | body if path == "img2img" else body)
    assert (refused.status_code, refused.headers.get("retry-after")) == (429, "5"), refused.text


def test_no_more_requests_get_their_pictures_at_once_than_may_wait(
    serve: Serve, pictures: SlowServer
):
    client = serve(queue_limit=2, allow_private_urls=True)
    body = SMALL | {"init_images": [pictures.url]}
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(client.post, "/sdapi/v1/img2img", json=body) for _ in range(20)]
        wait_ready(lambda: sum(each.done() for each in asked) >= 14, 20)
        assert len(pictures.asked) <= 6
        refused = [each.result().status_code for each in asked if each.done()]
        assert refused == [429] * 14
        pictures.opened.set()
        answers = [each.result() for each in asked]
    statuses = [each.status_code for each in answers]
    assert set(statuses) <= {200, 429}
    assert 1 <= statuses.count(200) <= 6
    text = {"init_images": [base64.b64encode(png()).decode()]}
    assert client.post("/sdapi/v1/img2img", json=SMALL | text).status_code == 200
