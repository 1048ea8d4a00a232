"""Tasks: cancelled, queued, followed, and told of when they are over."""

import errno
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.fakes import FakeEngine
from tests.servers import wait_ready

SMALL = {"width": 64, "height": 64, "steps": 10}


def start(client: TestClient, id_task: str, **body: Any) -> tuple[threading.Thread, list[Any]]:
    """A request under an id in a thread of its own, and a list that gets its answer."""
    answers: list[Any] = []

    def ask() -> None:
        answers.append(
            client.post("/sdapi/v1/txt2img", json=SMALL | {"force_task_id": id_task} | body)
        )

    thread = threading.Thread(target=ask)
    thread.start()
    wait_ready(lambda: state(client, id_task) is not None, 10)
    return thread, answers


def state(client: TestClient, id_task: str) -> str | None:
    return client.get("/sdapi/v1/task", params={"id_task": id_task}).json().get("state")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"sampler_name": "nope"}, "Sampler not found"),
        ({"override_settings": {"sd_model_checkpoint": "nope"}}, "nope"),
    ],
)
def test_a_request_that_is_refused_is_a_task_that_failed(
    client: TestClient, body: dict[str, Any], words: str
):
    client.post("/sdapi/v1/txt2img", json=SMALL | body | {"force_task_id": "bad"})
    told = client.get("/sdapi/v1/task", params={"id_task": "bad"}).json()
    assert (told["state"], words in told["error"]) == ("failed", True), told


def test_queued_task_is_cancelled_by_its_id_and_nothing_else_is(
    client: TestClient, engine: FakeEngine
):
    engine.delay_s = 1.0
    first, first_answers = start(client, "one")
    wait_ready(lambda: state(client, "one") == "running", 10)
    second, second_answers = start(client, "two")
    third, third_answers = start(client, "three")
    told = client.get("/sdapi/v1/task", params={"id_task": "three"}).json()
    assert (told["state"], told["queue_position"]) == ("queued", 1)
    client.post("/sdapi/v1/interrupt", params={"id_task": "two"})
    for thread in (first, second, third):
        thread.join()
    statuses = [
        answers[0].status_code for answers in (first_answers, second_answers, third_answers)
    ]
    assert statuses == [200, 409, 200]
    assert [state(client, name) for name in ("one", "two", "three")] == [
        "done",
        "cancelled",
        "done",
    ]


def test_running_task_is_interrupted_and_answered(client: TestClient, engine: FakeEngine):
    engine.delay_s = 30
    thread, answers = start(client, "one")
    wait_ready(lambda: state(client, "one") == "running", 10)
    client.post("/sdapi/v1/interrupt")
    thread.join()
    assert (answers[0].status_code, len(answers[0].json()["images"])) == (200, 1)
    told = client.get("/sdapi/v1/task", params={"id_task": "one"}).json()
    assert (told["state"], told["progress"]) == ("cancelled", 0.0)
    assert "interrupted" in told["error"]


def stop_at_once(client: TestClient) -> None:
    """What a server does when `--shutdown-timeout` is over."""
    app: Any = client.app
    app.state.lifecycle.interrupt()


def test_a_job_that_the_server_s_stop_cuts_short_says_so(client: TestClient, engine: FakeEngine):
    engine.delay_s = 30
    thread, answers = start(client, "one")
    assert engine.is_running.wait(10)
    stop_at_once(client)
    thread.join()
    assert answers[0].status_code == 200
    assert len(answers[0].json()["images"]) == 1
    assert ["the server was stopped" in told for told in answers[0].json()["warnings"]] == [True]


def test_url_mode_says_so_too(client: TestClient, engine: FakeEngine):
    engine.delay_s = 30
    thread, answers = start(client, "one", alwayson_scripts={"save_dir": "cut"})
    assert engine.is_running.wait(10)
    stop_at_once(client)
    thread.join()
    assert answers[0].json()["parameters"]["image_url"].endswith(".png")
    assert "the server was stopped" in answers[0].json()["warnings"][0]


def test_a_script_that_is_cut_short_says_so(client: TestClient, engine: FakeEngine):
    engine.delay_s = 30
    script = {"script_name": "x/y/z plot", "script_args": [4, "3, 4", [], 0, "", []]}
    thread, answers = start(client, "one", **script)
    assert engine.is_running.wait(10)
    stop_at_once(client)
    thread.join()
    assert answers[0].status_code == 200, answers[0].text
    assert "the server was stopped" in answers[0].json()["warnings"][-1]


def test_a_job_that_its_caller_interrupted_before_the_stop_says_nothing(
    client: TestClient, engine: FakeEngine
):
    engine.delay_s = 30
    thread, answers = start(client, "one")
    assert engine.is_running.wait(10)
    client.post("/sdapi/v1/interrupt")
    stop_at_once(client)
    thread.join()
    assert answers[0].status_code == 200
    assert "warnings" not in answers[0].json()


@pytest.mark.parametrize(
    "body", [{}, {"script_name": "x/y/z plot", "script_args": [4, "3, 4", [], 0, "", []]}]
)
def test_url_mode_says_that_somebody_interrupted_it(
    client: TestClient, engine: FakeEngine, body: dict[str, Any]
):
    engine.delay_s = 30
    thread, answers = start(client, "one", alwayson_scripts={"save_dir": "cut"}, **body)
    assert engine.is_running.wait(10)
    client.post("/sdapi/v1/interrupt")
    thread.join()
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json()["parameters"]["image_url"].endswith(".png")
    assert [told[:12] for told in answers[0].json()["warnings"]] == ["interrupted:"]


def test_full_queue_says_when_to_come_again(serve: Serve, engine: FakeEngine):
    client = serve(queue_limit=1)
    engine.delay_s = 1.0
    running, _ = start(client, "one")
    wait_ready(lambda: state(client, "one") == "running", 10)
    waiting, _ = start(client, "two")
    wait_ready(
        lambda: (
            client.get("/sdapi/v1/task", params={"id_task": "two"}).json()["queue_position"] == 0
        ),
        10,
    )
    refused = client.post("/sdapi/v1/txt2img", json=SMALL)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    for thread in (running, waiting):
        thread.join()


def test_events_follow_a_task_to_its_end(client: TestClient, engine: FakeEngine):
    engine.delay_s = 0.3
    thread, _ = start(client, "one")
    with client.stream("GET", "/sdapi/v1/progress/events", params={"id_task": "one"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        told = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    thread.join()
    assert told[-1]["state"] == "done"
    assert told[-1]["progress"] == 1.0
    assert [each["state"] for each in told] == sorted(
        (each["state"] for each in told), key=["queued", "running", "done"].index
    )


def test_socket_follows_a_task_to_its_end(client: TestClient):
    client.post("/sdapi/v1/txt2img", json=SMALL | {"force_task_id": "one"})
    with client.websocket_connect("/sdapi/v1/progress/ws?id_task=one") as socket:
        assert socket.receive_json()["state"] == "done"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "rename", fail)
    monkeypatch.setattr(os, "link", fail)


SAVED = [
    {"save_images": True},
    {"alwayson_scripts": {"save_dir": "tmp"}},
    {"alwayson_scripts": {"save_dir": "tmp"}, "script_name": "prompt matrix"},
]


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("body", SAVED, ids=["saved", "url mode", "script"])
def test_task_whose_pictures_cannot_be_saved_fails_as_its_answer_does(
    client: TestClient, body: dict[str, Any]
):
    answer = client.post("/sdapi/v1/txt2img", json=SMALL | body | {"force_task_id": "full"})
    assert answer.status_code == 507
    said = answer.json()
    sentence = said.get("detail") or said["parameters"]["error_msg"]
    with client.websocket_connect("/sdapi/v1/progress/ws?id_task=full") as socket:
        told = socket.receive_json()
    assert (told["state"], told["error"], told["progress"]) == ("failed", sentence, 0.0)
    assert progress(client, "full")["textinfo"] == f"task failed: {sentence}"


def progress(client: TestClient, id_task: str) -> dict[str, Any]:
    return client.get("/sdapi/v1/progress", params={"id_task": id_task}).json()


def test_progress_of_a_task_that_is_over_is_its_own(client: TestClient, engine: FakeEngine):
    client.post("/sdapi/v1/txt2img", json=SMALL | {"force_task_id": "done"})
    client.post("/sdapi/v1/txt2img", json=SMALL | {"force_task_id": "bad", "sampler_name": "nope"})
    client.post("/sdapi/v1/txt2img", json=SMALL | {"steps": 7, "n_iter": 3})
    done, bad = progress(client, "done"), progress(client, "bad")
    assert (done["progress"], done["textinfo"]) == (1.0, "task done")
    assert (done["state"]["sampling_steps"], done["state"]["job_no"]) == (10, 1)
    assert (done["state"]["job"], done["state"]["job_count"]) == ("", 0)
    assert (bad["progress"], bad["state"]["sampling_steps"]) == (0.0, 0)
    assert bad["textinfo"].startswith("task failed: sampler 'nope'")


def test_progress_of_an_unknown_task_tells_nothing_of_the_last_one(client: TestClient):
    client.post("/sdapi/v1/txt2img", json=SMALL)
    told, last = progress(client, "none"), client.get("/sdapi/v1/progress").json()
    assert told["textinfo"] == "there is no task 'none'"
    assert set(told["state"].values()) <= {0, "", "0"}
    assert last["state"]["sampling_steps"] == 10  # as the webui has it without an id


def test_unknown_task_is_told(client: TestClient):
    for path in ("/sdapi/v1/task", "/sdapi/v1/progress/events"):
        assert client.get(path, params={"id_task": "none"}).status_code == 404


class Listener(HTTPServer):
    """Takes webhooks; refuses the first of them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/done"


class _Handler(BaseHTTPRequestHandler):
    server: Listener  # pyright: ignore

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append((headers, body))
        self.send_response(503 if len(self.server.got) == 1 else 204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def hooked(client: TestClient, url: str) -> Any:
    body = SMALL | {"force_task_id": "one"}
    return client.post("/sdapi/v1/txt2img", json=body, headers={"x-sdapi-webhook": url})


def test_webhook_is_signed_and_sent_again_after_a_failure(serve: Serve, listener: Listener):
    client = serve(webhook_secret="key", allow_http_webhooks=True, allow_private_urls=True)
    client.app.state.services.webhooks.delays_s = (0.05, 0.05)  # pyright: ignore
    assert hooked(client, listener.url).status_code == 200
    wait_ready(lambda: len(listener.got) == 2, 10)
    headers, body = listener.got[1]
    told = json.loads(body)
    assert (told["id_task"], told["state"]) == ("one", "done")
    signed = f"{headers['x-sdapi-timestamp']}.".encode() + body
    expected = hmac.new(b"key", signed, hashlib.sha256).hexdigest()
    assert headers["x-sdapi-signature"] == f"sha256={expected}"


@pytest.mark.usefixtures("full_disk")
def test_webhook_of_a_task_that_cannot_be_saved_says_so(serve: Serve, listener: Listener):
    client = serve(webhook_secret="key", allow_http_webhooks=True, allow_private_urls=True)
    body = SMALL | {"save_images": True}
    client.post("/sdapi/v1/txt2img", json=body, headers={"x-sdapi-webhook": listener.url})
    wait_ready(lambda: len(listener.got) == 1, 10)
    told = json.loads(listener.got[0][1])
    assert (told["state"], "No space left" in told["error"]) == ("failed", True), told


def test_webhook_of_an_interrupted_task_says_so(
    serve: Serve, listener: Listener, engine: FakeEngine
):
    client = serve(webhook_secret="key", allow_http_webhooks=True, allow_private_urls=True)
    client.app.state.services.webhooks.delays_s = (0.05, 0.05)  # pyright: ignore
    engine.delay_s = 30
    thread = threading.Thread(target=hooked, args=(client, listener.url))
    thread.start()
    assert engine.is_running.wait(10)
    client.post("/sdapi/v1/interrupt")
    thread.join()
    wait_ready(lambda: len(listener.got) == 2, 10)
    told = json.loads(listener.got[1][1])
    assert (told["state"], "interrupted" in told["error"]) == ("cancelled", True)


def test_webhooks_that_nobody_takes_do_not_pile_up(serve: Serve, listener: Listener):
    client = serve(webhook_secret="key", allow_http_webhooks=True, allow_private_urls=True)
    webhooks = client.app.state.services.webhooks  # pyright: ignore
    webhooks.limit, webhooks.delays_s = 1, (60.0,)
    assert hooked(client, listener.url).status_code == 200
    wait_ready(lambda: len(listener.got) == 1, 10)
    refused = hooked(client, listener.url)
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "--webhook-secret"),
        ({"webhook_secret": "key", "allow_private_urls": True}, "is not https"),
        ({"webhook_secret": "key", "allow_http_webhooks": True}, "public address"),
    ],
)
def test_webhook_that_may_not_be_sent_is_refused_at_once(
    serve: Serve, engine: FakeEngine, settings: dict[str, Any], words: str
):
    response = hooked(serve(**settings), "http://127.0.0.1:1/done")
    assert response.status_code == 422
    assert words in response.json()["detail"]
    assert engine.jobs == []
