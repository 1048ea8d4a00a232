"""Clients that die in mid-request leave nothing behind."""

import gc
import json
import socket
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import uvicorn

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import wait_ready

#: Python keeps freed memory for itself; more than this is a leak
_ALLOWED_GROWTH = 40 << 20
#: anyio keeps up to these many threads for later
_POOL = 40


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_clients_that_die_leave_no_task_thread_or_memory(tmp_path: Path, count: int):
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    (folder / "one.safetensors").write_bytes(b"weights")
    engine = FakeEngine(delay_s=60)
    app = build_app(Settings(data_dir=tmp_path), FakeEngines(engine))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_ready(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        services = app.state.services
        wait_ready(lambda: services.is_ready)
        _die_in_mid_request(port)
        wait_ready(lambda: services.tasks.open_count == 0, 30)
        threads, memory = threading.active_count(), psutil.Process().memory_info().rss
        for _ in range(count):
            _die_in_mid_request(port)
        wait_ready(lambda: services.tasks.open_count == 0, 60)
        gc.collect()
        assert services.scheduler.depth == 0
        assert threading.active_count() <= threads + _POOL
        assert psutil.Process().memory_info().rss - memory < _ALLOWED_GROWTH
        engine.delay_s = 0
        assert b" 200 " in _ask(port)
    finally:
        server.should_exit = True
        thread.join()


def _request() -> bytes:
    body = json.dumps({"width": 64, "height": 64, "steps": 1000}).encode()
    head = f"POST /sdapi/v1/txt2img HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    return f"{head}content-type: application/json\r\nconnection: close\r\n\r\n".encode() + body


def _die_in_mid_request(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(_request())
        client.settimeout(0.05)
        with suppress(TimeoutError):
            client.recv(1)


def _ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(60)
        client.sendall(_request())
        return client.recv(100)
