"""What is put comes back."""

import threading
import time
import uuid
from typing import Any

import anyio
from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.contract.queue.calls import SINK, data, items, put


def test_a_put_answers_bare_digits_and_the_request_id(queue: TestClient):
    first, second = put(queue), put(queue)
    assert (first.text, second.text) == ("1", "2")
    assert len(first.headers["X-Eas-Queueservice-Request-Id"]) == 36


def test_raw_get_answers_the_bytes_and_deletes_them(queue: TestClient):
    request_id = put(queue, data=b"\x00\xff").headers["X-Eas-Queueservice-Request-Id"]
    answer = queue.get(SINK)
    assert (answer.status_code, answer.content) == (200, b"\x00\xff")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["X-Eas-Queueservice-Request-Id"] == request_id
    assert answer.headers["X-Eas-Queueservice-Index"] == "1"
    empty = queue.get(SINK)
    assert (empty.status_code, empty.content) == (204, b"")


def test_the_content_type_of_a_put_comes_back(queue: TestClient):
    queue.post(SINK, content=b"<p>", headers={"content-type": "text/html"})
    assert queue.get(SINK).headers["content-type"] == "text/html"


def test_encapsulated_get_answers_json_with_base64(queue: TestClient):
    put(queue, task_id="t 1/中", k="a+b")
    [item] = items(queue)
    assert item.keys() == {"index", "tags", "data"}
    assert (item["index"], data(item)) == (1, b"abc")
    assert item["tags"]["task_id"] == "t 1/中"
    assert item["tags"]["k"] == "a+b"
    assert len(item["tags"]["ts@sink"]) == 13
    assert len(queue.get(SINK, params={"_length_": "5", "_auto_delete_": "false"}).json()) == 1


def test_an_index_asks_for_it_or_the_next_larger_one(queue: TestClient):
    for text in (b"a", b"b", b"c"):
        put(queue, data=text)
    queue.delete(SINK, params={"_indexes_": "2"})
    get = {"_auto_delete_": "false", "_length_": "1"}
    assert [data(i) for i in items(queue, **get | {"_index_": "2"})] == [b"c"]
    assert [data(i) for i in items(queue, _index_="-1", _length_="1")] == [b"c"]
    assert items(queue, _index_="4") == []


def test_get_by_request_id_and_by_tags(queue: TestClient):
    put(queue, data=b"a", task_id="1", k="v")
    request_id = put(queue, data=b"b", task_id="2", k="v").headers["X-Eas-Queueservice-Request-Id"]
    assert [data(i) for i in items(queue, requestId=request_id)] == [b"b"]
    assert [data(i) for i in items(queue, k="v")] == [b"a", b"b"]
    assert [data(i) for i in items(queue, k="v", task_id="1")] == [b"a"]
    assert items(queue, k="w") == []


def test_a_get_waits_for_what_comes(queue: TestClient):
    timer = threading.Timer(0.3, put, [queue], {"task_id": "late"})
    timer.start()
    began = time.monotonic()
    answer = queue.get(SINK, params={"_timeout_": "5s", "task_id": "late"})
    assert answer.content == b"abc"
    assert 0.2 < time.monotonic() - began < 3
    timer.join()


def test_nothing_in_time_is_held_back_so_that_the_client_gives_up_first(serve: Serve):
    client = serve(services=("svc",), queue_hold_s=3600.0)
    assert client.portal is not None
    assert client.portal.call(answered, client, "0s", None) == 204
    assert client.portal.call(answered, client, "1ms", 0.2) is None


async def answered(client: TestClient, timeout: str, leaves_after_s: float | None) -> int | None:
    """The status of a `GET` that the caller got before it left; None when it got none."""
    statuses: list[int] = []
    received: list[str] = []
    has_left = anyio.Event()

    async def receive() -> dict[str, Any]:
        kind = "http.disconnect" if received else "http.request"
        received.append(kind)
        if kind == "http.disconnect":
            await anyio.sleep(3600 if leaves_after_s is None else leaves_after_s)
            has_left.set()
        return {"type": kind}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and not has_left.is_set():
            statuses.append(message["status"])

    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": SINK,
        "query_string": f"_timeout_={timeout}".encode(),
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
    }
    with anyio.fail_after(60):
        await client.app(scope, receive, send)
    return statuses[0] if statuses else None


def test_a_get_answers_what_there_is_when_the_time_is_over(queue: TestClient):
    put(queue)
    found = items(queue, _length_="3", _timeout_="0.3")
    assert len(found) == 1


def test_the_first_of_two_waiting_readers_gets_the_item(queue: TestClient):
    order: list[str] = []

    def read(name: str) -> None:
        if queue.get(SINK, params={"_timeout_": "1s"}).status_code == 200:
            order.append(name)

    threads = [threading.Thread(target=read, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    put(queue)
    for thread in threads:
        thread.join()
    assert order == ["first"]


def test_the_request_id_of_a_put_is_a_random_uuid(queue: TestClient):
    made = {uuid.UUID(put(queue).headers["X-Eas-Queueservice-Request-Id"]) for _ in range(20)}
    assert len(made) == 20
    assert {(each.version, each.variant) for each in made} == {(4, uuid.RFC_4122)}


def test_the_request_id_of_a_put_may_be_given(queue: TestClient):
    assert put(queue, requestId="mine").headers["X-Eas-Queueservice-Request-Id"] == "mine"
    assert put(queue, requestId="mine").text == "1"
    other = queue.post(SINK, params={"requestId": "mine"}, content=b"other")
    assert other.status_code == 409
