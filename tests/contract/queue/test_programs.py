"""Services whose program is another process: when it is away, fails, or answers badly."""

import gzip
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sdapi.errors import StorageFailed
from sdapi.queue.dispatching.on_port import OnPort
from tests.contract.conftest import Serve
from tests.contract.queue.calls import attributes, data, items, service_file
from tests.contract.queue.programs import BROKEN, OK, UNAVAILABLE, RawProgram
from tests.servers import wait_ready

ASYNC = "/api/predict/own"

Start = Callable[..., TestClient]


@pytest.fixture
def program() -> RawProgram:
    return RawProgram()


@pytest.fixture
def start(serve: Serve, program: RawProgram, tmp_path: Path) -> Start:
    """A server of `own`, which is the program."""

    def start(max_delivery: int = 1, keepalive_ms: int = 5000, **metadata: Any) -> TestClient:
        rpc = {"keepalive": keepalive_ms, "worker_threads": 1}
        path = service_file(
            tmp_path,
            metadata={"name": "own", "type": "Async", "rpc": rpc} | metadata,
            queue={"max_delivery": max_delivery},
            containers=[{"image": "registry/own:1", "port": program.port}],
        )
        return serve(service_files=(path,))

    return start


def results(client: TestClient, count: int = 1) -> list[dict[str, Any]]:
    found = items(client, f"{ASYNC}/sink", _timeout_="20s", _length_=str(count))
    assert len(found) == count
    return found


def test_items_wait_uncounted_while_their_program_is_away(
    start: Start, program: RawProgram, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "sdapi.queue")
    with program.running():
        client = start()
        client.post(f"{ASYNC}/first")
        results(client)
    for number in range(4):
        client.post(f"{ASYNC}/{number}")
    wait_ready(lambda: "its items wait" in caplog.text, 5)
    time.sleep(2)
    assert attributes(client, ASYNC)["stream.length"] == "4"
    assert attributes(client, f"{ASYNC}/sink")["stream.length"] == "1"
    with program.running():
        found = results(client, 5)
    assert ["lastCode" in each["tags"] for each in found] == [False] * 5
    assert program.asked[1:] == [f"POST /{number}" for number in range(4)]
    assert caplog.text.count("its items wait") == 1
    assert caplog.text.count("its program answers") == 1


@pytest.mark.parametrize("error", [StorageFailed("disk full"), OSError("odd")])
def test_items_go_on_after_their_program_was_away_while_the_store_failed(
    start: Start, program: RawProgram, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    with program.running():
        client = start()
        client.post(f"{ASYNC}/first")
        results(client)
    app: Any = client.app
    store = app.state.queues.service.store
    real, rejected = store.reject, list[bool]()

    async def reject(*given: Any, **named: Any) -> None:
        rejected.append(True)
        if len(rejected) == 1:
            raise error
        await real(*given, **named)

    monkeypatch.setattr(store, "reject", reject)
    for number in range(4):
        client.post(f"{ASYNC}/{number}")
    wait_ready(lambda: len(rejected) >= 2, 10)
    with program.running():
        results(client, 5)
    assert program.asked[1:] == [f"POST /{number}" for number in range(4)]


def test_a_service_goes_on_after_a_look_at_its_program_that_fails_unforeseen(
    start: Start,
    program: RawProgram,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    real, looks = OnPort.is_ready, list[bool]()

    async def is_ready(inference: OnPort) -> bool:
        looks.append(True)
        if len(looks) == 1:
            raise OSError("odd")
        return await real(inference)

    monkeypatch.setattr(OnPort, "is_ready", is_ready)
    with program.running():
        client = start()
        client.post(f"{ASYNC}/a")
        results(client)
    [record] = [r for r in caplog.records if "service own cannot take items now" in r.getMessage()]
    assert record.exc_info is not None


def test_a_connection_that_breaks_makes_a_dead_letter_after_the_last_delivery(
    start: Start, program: RawProgram
):
    program.answer = lambda line: BROKEN
    with program.running():
        client = start(max_delivery=2)
        client.post(f"{ASYNC}/a?k=v", content=b"data")
        [result] = results(client)
        assert (result["tags"]["lastCode"], result["tags"]["k"]) == ("502", "v")
        assert "2 deliveries" in json.loads(data(result))["error"]
    assert program.asked == ["POST /a?k=v"] * 2
    rear = {"X-EAS-QueueService-Access-Rear": "true"}
    assert client.get(f"{ASYNC}?_auto_delete_=false", headers=rear).content == b"data"


def test_a_refusal_of_another_program_is_a_delivery_and_then_the_result(
    start: Start, program: RawProgram
):
    program.answer = lambda line: UNAVAILABLE
    with program.running():
        client = start(max_delivery=2)
        client.post(f"{ASYNC}/a")
        [result] = results(client)
    assert (result["tags"]["lastCode"], data(result)) == ("503", b"busy")
    assert len(program.asked) == 2
    assert attributes(client, ASYNC)["stream.length"] == "0"


def test_an_answer_that_cannot_be_decoded_is_told_as_such(start: Start, program: RawProgram):
    broken = gzip.compress(b"x" * 1000)[:10] + b"no gzip at all"
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\ncontent-length: "
    program.answer = lambda line: head + str(len(broken)).encode() + b"\r\n\r\n" + broken
    with program.running():
        client = start()
        client.post(f"{ASYNC}/a")
        [result] = results(client)
    assert result["tags"]["lastCode"] == "502"
    assert "cannot be decoded" in json.loads(data(result))["error"]


def test_a_cookie_set_for_one_item_does_not_go_out_with_another(start: Start, program: RawProgram):
    program.answer = lambda line: OK.replace(
        b"content-length", b"set-cookie: a=1\r\ncontent-length"
    )
    with program.running():
        client = start()
        for _ in range(2):
            client.post(f"{ASYNC}/a")
        results(client, 2)
    assert ["cookie" in head.lower() for head in program.heads] == [False, False]


PATHS = ["/a%20b/c%3Fd/e%23f", "/%25", "//evil/x", "/a%00b", "/%E4%B8%AD", "/a%2Fb"]


def test_a_path_reaches_the_program_as_it_was_sent(start: Start, program: RawProgram):
    with program.running():
        client = start()
        for path in PATHS:
            assert client.post(f"{ASYNC}{path}?k=%20v").status_code == 200
        results(client, len(PATHS))
    assert program.asked == [f"POST {path}?k=+v" for path in PATHS]


def test_each_instance_is_a_consumer_of_its_own(start: Start, program: RawProgram):
    with program.running():
        client = start(instance=2)
        wait_ready(lambda: attributes(client, ASYNC).get("consumers.stats.total") == "2", 5)


def test_an_item_that_is_deleted_while_it_runs_lets_no_other_run_beside_it(
    start: Start, program: RawProgram
):
    program.stalls = True
    program.answer = lambda line: OK if line.endswith("/b") else b""
    with program.running():
        client = start(keepalive_ms=1500)
        index = client.post(f"{ASYNC}/a").text
        wait_ready(lambda: program.asked == ["POST /a"], 5)
        client.post(f"{ASYNC}/b")
        client.delete(f"{ASYNC}?_indexes_={index}")
        time.sleep(0.7)
        assert program.asked == ["POST /a"]
        wait_ready(lambda: program.asked == ["POST /a", "POST /b"], 5)
