"""A signal while a picture is being drawn."""

import threading
from pathlib import Path
from typing import Any

import requests

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
