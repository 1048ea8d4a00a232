"""A signal while a picture is being drawn."""

import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.queues.queue_faults import Program, Servers
from tests.queues.queue_stores import free_port
from tests.servers import server_process, wait_ready

BODY: dict[str, Any] = {"width": 64, "height": 64, "seed": 5, "prompt": "a cat"}


def test_running_job_is_answered_new_ones_are_refused_and_the_exit_code_is_zero(
    tiny_data_dir: Path,
):
    with server_process(tiny_data_dir, "--ckpt", "tinyA") as server:
        url = f"{server.url}/sdapi/v1"
        answers: list[requests.Response] = []

        def ask() -> None:
            body = BODY | {"steps": 60}
            answers.append(requests.post(f"{url}/txt2img", json=body, timeout=60))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_ready(lambda: requests.get(f"{url}/progress", timeout=10).json()["progress"] > 0, 20)
        server.terminate()
        wait_ready(
            lambda: requests.get(f"{url}/progress", timeout=10).status_code == 503, timeout_s=5
        )
        refused = requests.post(f"{url}/txt2img", json=BODY | {"steps": 1}, timeout=10)
        assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")
        assert int(refused.headers["retry-after"]) > 0
        assert requests.get(f"{server.url}/healthz", timeout=10).status_code == 200
        thread.join(40)
        assert server.exit_code() == 0
        assert answers[0].status_code == 200
        assert len(answers[0].json()["images"]) == 1
        assert "the running job may take" in server.log
        assert "Traceback" not in server.log


def test_job_that_outlasts_the_time_out_is_answered_with_what_it_has_and_says_so(
    tiny_data_dir: Path,
):
    with server_process(tiny_data_dir, "--ckpt", "tinyA", "--shutdown-timeout", "1") as server:
        url = f"{server.url}/sdapi/v1"
        answers: list[requests.Response] = []

        def ask() -> None:
            body = BODY | {"steps": 5000}
            answers.append(requests.post(f"{url}/txt2img", json=body, timeout=60))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_ready(lambda: requests.get(f"{url}/progress", timeout=10).json()["progress"] > 0, 20)
        server.terminate()
        thread.join(40)
        assert server.exit_code() == 0
        assert answers[0].status_code == 200
        assert len(answers[0].json()["images"]) == 1
        assert "the server was stopped" in answers[0].json()["warnings"][0]


@contextmanager
def queue_server(folder: Path, program: Program) -> Iterator[tuple[Servers, int]]:
    """A queue on SQLite whose items `program` works on."""
    servers = Servers(folder, "-", program.port, max_delivery=0)
    try:
        port = free_port()
        servers.start(port)
        yield servers, port
    finally:
        servers.close()


def test_who_waits_for_items_is_let_go_when_the_server_stops(tmp_path: Path):
    with queue_server(tmp_path, Program()) as (servers, port), ThreadPoolExecutor() as pool:
        url = f"http://127.0.0.1:{port}/api/predict/svc/sink"
        waiting = pool.submit(requests.get, f"{url}?_timeout_=60s", timeout=20)
        watching = requests.get(f"{url}?_watch_=true", stream=True, timeout=20)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as half:
            half.sendall(
                b"POST /api/predict/svc HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhal"
            )
            requests.get(f"{url}?_count_=true", timeout=20)
            servers.running[port].send_signal(signal.SIGTERM)
            assert watching.raw.read() == b""  # a whole answer: otherwise this raises
            assert half.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        answer = waiting.result()
        assert (answer.status_code, answer.text) == (503, "the server is shutting down")
        assert servers.running[port].wait(20) == 0
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "Cancel" not in log


def test_a_result_that_comes_while_the_server_stops_is_given_to_who_waits_for_it(tmp_path: Path):
    program = Program(delay_s=1.5)
    with queue_server(tmp_path, program) as (servers, port), ThreadPoolExecutor() as pool:
        url = f"http://127.0.0.1:{port}/api/predict/svc"
        waiting: Future[requests.Response] = pool.submit(
            requests.get, f"{url}/sink?_timeout_=60s", timeout=20
        )
        requests.post(url, data="one", timeout=20)
        wait_ready(lambda: bool(program.calls), 20)
        servers.running[port].send_signal(signal.SIGTERM)
        assert (waiting.result().status_code, waiting.result().text) == (200, "one")
