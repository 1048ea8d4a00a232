"""Verbs beside put and get, and the attributes."""

import pytest
from starlette.testclient import TestClient

from tests.contract.queue.calls import SINK, U, attributes, put
from tests.servers import wait_ready


def test_count_commit_delete_truncate_and_end(queue: TestClient):
    for number in range(6):
        put(queue, k=str(number % 2), _priority_=str(number % 3))
    assert queue.get(SINK, params={"_count_": "true"}).text == "6"
    assert queue.get(SINK, params={"_count_": "true", "k": "1"}).text == "3"
    assert queue.get(SINK, params={"_count_": "true", "_priority_": "2"}).text == "2"
    for call, left in (
        (lambda: queue.put(f"{SINK}?_indexes_=1%2C99"), 5),
        (lambda: queue.delete(f"{SINK}?_indexes_=2"), 4),
        (lambda: queue.delete(f"{SINK}?_index_=4&_trunc_=true"), 3),
        (lambda: queue.post(f"{SINK}?_eos_=true"), 3),
        (lambda: queue.post(f"{SINK}?_eos_=true&_force_=true"), 0),
    ):
        answer = call()
        assert (answer.status_code, answer.text) == (200, "OK")
        assert attributes(queue)["stream.length"] == str(left)
    assert put(queue).text == "7"


def test_a_delete_is_ok_and_tells_how_many_items_there_were(queue: TestClient):
    for _ in range(5):
        put(queue)
    answers = [
        queue.delete(f"{SINK}?{query}")
        for query in (
            "_indexes_=99999",
            "_indexes_=1,2,99999",
            "_indexes_=1",
            "_index_=5&_trunc_=true",
        )
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "OK")}
    counts = [answer.headers["X-Eas-Queueservice-Deleted"] for answer in answers]
    assert counts == ["0", "2", "0", "2"]


def test_search_tells_the_place_in_the_line(queue: TestClient):
    put(queue)
    put(queue)
    answer = queue.get(f"{SINK}?_search_=true&_index_=2")
    assert answer.json() == {"ConsumerId": "", "IsPending": False, "WaitCount": 1}
    missing = queue.get(f"{SINK}?_search_=true&_index_=9")
    assert (missing.status_code, missing.text) == (404, "no data in stream")


def test_a_negative_commit_needs_a_code(queue: TestClient):
    put(queue)
    url = f"{SINK}?_indexes_=1&_negative_=true"
    assert queue.put(url, data={"_code_": "Shutdown", "_reason_": "bye"}).text == "OK"
    assert queue.put(url, data={"_code_": "500"}).text == "OK"
    for code in ("", "no", "A b", "X" * 21):
        assert queue.put(url, data={"_code_": code}).status_code == 400
    assert attributes(queue)["stream.length"] == "1"


def test_the_rear_queue_takes_every_verb(queue: TestClient):
    rear = {"X-EAS-QueueService-Access-Rear": "true"}
    assert queue.post(U, content=b"dead", headers=rear).text == "1"
    assert queue.get(f"{U}?_attrs_=true", headers=rear).json()["stream.length"] == "1"
    assert attributes(queue, U)["stream.length"] == "0"
    assert queue.get(U, headers=rear).content == b"dead"


@pytest.mark.parametrize("verb", ["PATCH", "HEAD", "OPTIONS", "TRACE"])
def test_other_verbs_are_405(queue: TestClient, verb: str):
    assert queue.request(verb, U).status_code == 405


def test_attributes_have_the_keys_of_the_product_document(queue: TestClient):
    wait_ready(lambda: attributes(queue, U)["consumers.stats.total"] == "1")
    put(queue, f"{U}/nowhere")
    found = attributes(queue, U)
    assert list(found) == sorted(found)
    assert found.keys() == {
        *("consumers.list.[0]", "consumers.stats.total", "consumers.status.total"),
        *("groups.list.[0]", "meta.header.group", "meta.header.priority", "meta.header.user"),
        *("meta.name", "meta.state", "stream.approxMaxLength", "stream.firstEntry"),
        *("stream.lastEntry", "stream.length", "stream.maxPayloadBytes"),
    }
    assert all(isinstance(value, str) for value in found.values())
    assert found["meta.header.user"] == "X-EAS-QueueService-Uid"
    assert found["meta.name"].startswith("svc-queue-")
    assert found["stream.maxPayloadBytes"] == "20971520"
    assert found["consumers.list.[0]"].startswith("Id: svc.svc-")
    assert "Window: 1, Slots: " in found["consumers.list.[0]"]
    assert found["groups.list.[0]"].startswith("Id: svc, Index: ")


def test_attributes_are_protobuf_for_whom_asks(queue: TestClient):
    protobuf = {"accept": "application/vnd.google.protobuf"}
    answer = queue.get(f"{U}?_attrs_=true", headers=protobuf)
    assert answer.headers["content-type"] == protobuf["accept"]
    assert b"meta.header.user" in answer.content
