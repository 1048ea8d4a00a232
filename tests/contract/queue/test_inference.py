"""What is put is carried to a route, and the answer into the sink."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.contract.queue.calls import BODY, SINK, U, attributes, data, items, put, service_file
from tests.fakes import FakeEngine
from tests.servers import wait_ready


def result_of(client: TestClient, request_id: str, timeout: str = "20s") -> dict[str, Any]:
    params = {"requestId": request_id, "_raw_": "false", "_timeout_": timeout}
    answer = client.get(SINK, params=params)
    assert answer.status_code == 200
    [item] = answer.json()
    return item


def ask(client: TestClient, path: str = "sdapi/v1/txt2img", body: bytes = BODY, **tags: str) -> Any:
    answer = client.post(f"{U}/{path}", content=body, params=tags)
    return result_of(client, answer.headers["X-Eas-Queueservice-Request-Id"])


def test_the_path_of_a_put_is_the_path_of_the_call_and_tags_are_carried_over(queue: TestClient):
    item = ask(queue, task_id="txt2img_0")
    assert len(json.loads(data(item))["images"]) == 1
    assert item["tags"]["task_id"] == "txt2img_0"
    assert item["tags"].keys() == {"task_id", "requestId", "ts@source", "ts@sink"}
    assert attributes(queue, U)["stream.length"] == "0"


def test_a_put_without_a_path_is_told_where_calls_are(queue: TestClient):
    put(queue, U, BODY)
    [item] = items(queue, _timeout_="5s", _length_="1")
    assert item["tags"]["lastCode"] == "405"
    assert "/api/predict/svc/sdapi/v1/txt2img" in json.loads(data(item))["detail"]


@pytest.mark.parametrize(
    ("put_data", "problem"),
    [
        (b"a cat", "what was put is no JSON: 'a cat'; /sdapi/v1/txt2img takes a JSON object"),
        (b"prompt=a%20cat", "what was put is no JSON: 'prompt=a%20cat'"),
        (b"\xff\xfe", "what was put is no JSON: "),
        (b"x" * 5000, "what was put is no JSON: '" + "x" * 60 + "'…"),
        (b'"a cat"', "what was put is a text in JSON: '\"a cat\"'"),
        (b"[1]", "what was put is a list in JSON: '[1]'"),
        (b"", "nothing was put; /sdapi/v1/txt2img takes"),
    ],
)
@pytest.mark.parametrize(
    "content_type", ["", "application/x-www-form-urlencoded", "application/json"]
)
def test_a_put_that_is_no_json_object_is_told_what_was_put_and_what_its_path_takes(
    queue: TestClient, put_data: bytes, problem: str, content_type: str
):
    headers = {"content-type": content_type} if content_type else {}
    url = f"{U}/sdapi/v1/txt2img"
    answer = queue.post(url, content=put_data, headers=headers)
    item = result_of(queue, answer.headers["X-Eas-Queueservice-Request-Id"])
    assert item["tags"]["lastCode"] == "422"
    [entry] = json.loads(data(item))["detail"]
    assert entry["ctx"]["hint"].startswith(problem)
    assert entry["ctx"]["hint"].endswith("with or without a Content-Type")


def test_a_tag_is_a_parameter_of_the_call(queue: TestClient):
    item = ask(queue, "sdapi/v1/interrupt", b"", id_task="nobody")
    assert item["tags"]["lastCode"] == "404"
    assert b"nobody" in data(item)


def test_a_callers_mistake_is_a_result_with_its_status(queue: TestClient, engine: FakeEngine):
    item = ask(queue, body=b'{"steps": "many"}')
    assert item["tags"]["lastCode"] == "422"
    assert json.loads(data(item))["detail"]
    assert ask(queue, "no/such/path")["tags"]["lastCode"] == "404"
    assert ask(queue, "", b"{}")["tags"]["lastCode"] == "405"
    assert not engine.jobs


def test_a_failure_is_tried_as_often_as_allowed_and_then_is_the_result(
    serve: Serve, engine: FakeEngine, tmp_path: Path
):
    engine.failure = lambda job: RuntimeError("broken")
    client = serve(service_files=(service_file(tmp_path, queue={"max_delivery": 2}),))
    answer = client.post("/api/predict/small/sdapi/v1/txt2img", content=BODY)
    params = {"_timeout_": "20s", "_raw_": "false"}
    [item] = client.get("/api/predict/small/sink", params=params).json()
    assert item["tags"]["requestId"] == answer.headers["X-Eas-Queueservice-Request-Id"]
    assert item["tags"]["lastCode"] == "500"
    assert len(engine.jobs) == 2


def test_a_result_over_the_sinks_limit_becomes_a_413_for_its_reader(serve: Serve, tmp_path: Path):
    sink = {"sink": {"max_payload_size_kb": 1}}
    client = serve(service_files=(service_file(tmp_path, queue=sink),))
    client.post("/api/predict/small/sdapi/v1/txt2img", content=BODY)
    params = {"_timeout_": "20s", "_raw_": "false"}
    [item] = client.get("/api/predict/small/sink", params=params).json()
    assert item["tags"]["lastCode"] == "413"
    assert "1024" in json.loads(data(item))["error"]


def test_what_takes_longer_than_allowed_is_a_408_and_is_stopped(
    serve: Serve, engine: FakeEngine, tmp_path: Path
):
    engine.delay_s = 30
    metadata = {"name": "small", "type": "Async", "rpc": {"keepalive": 300}}
    path = service_file(tmp_path, metadata=metadata, queue={"max_delivery": 1})
    client = serve(service_files=(path,))
    began = time.monotonic()
    client.post("/api/predict/small/sdapi/v1/txt2img", content=BODY)
    params = {"_timeout_": "20s", "_raw_": "false"}
    [item] = client.get("/api/predict/small/sink", params=params).json()
    assert item["tags"]["lastCode"] == "408"
    wait_ready(lambda: not engine.is_running.is_set(), 5)
    assert time.monotonic() - began < 10


def test_a_request_is_seen_in_the_input_queue_while_it_is_worked_on(
    queue: TestClient, engine: FakeEngine
):
    engine.delay_s = 0.5
    index = put(queue, f"{U}/sdapi/v1/txt2img", BODY).text
    wait_ready(engine.is_running.is_set, 10)
    assert [data(item) for item in items(queue, U)] == [BODY]
    search = queue.get(
        f"{U}?_search_=true&_index_={index}", headers={"X-EAS-QueueService-Gid": "svc"}
    ).json()
    assert search["IsPending"]
    assert search["ConsumerId"].startswith("svc.svc-")
    assert "Pending: 1, Delivered: 2" in attributes(queue, U)["groups.list.[0]"]


def test_one_worker_does_items_by_priority_and_then_in_order(queue: TestClient, engine: FakeEngine):
    engine.delay_s = 0.5
    put(queue, f"{U}/sdapi/v1/txt2img", BODY, name="first")
    wait_ready(engine.is_running.is_set, 10)
    for name, priority in (("a", "0"), ("b", "0"), ("c", "1"), ("d", "2")):
        put(queue, f"{U}/sdapi/v1/txt2img", BODY, name=name, _priority_=priority)
    engine.delay_s = 0
    found = items(queue, _length_="5", _timeout_="20s")
    assert [item["tags"]["name"] for item in found] == ["first", "d", "c", "a", "b"]


@pytest.fixture
def synchronous(serve: Serve) -> TestClient:
    return serve(services=("sync:sync", "svc"), token="T")


def test_a_synchronous_service_is_the_api_below_its_name(synchronous: TestClient):
    headers = {"authorization": "T", "content-type": "application/json"}
    url = "/api/predict/sync/sdapi/v1"
    answer = synchronous.post(f"{url}/txt2img", content=BODY, headers=headers)
    assert len(answer.json()["images"]) == 1
    assert synchronous.get(f"{url}/samplers", headers=headers).json()
    assert synchronous.get(f"{url}/nothing", headers=headers).status_code == 404
    assert synchronous.get(f"{url}/samplers").status_code == 401


def test_a_synchronous_call_that_takes_too_long_is_408(
    serve: Serve, engine: FakeEngine, tmp_path: Path
):
    engine.delay_s = 5
    metadata = {"name": "small", "rpc": {"keepalive": 300}}
    client = serve(service_files=(service_file(tmp_path, metadata=metadata),))
    answer = client.post("/api/predict/small/sdapi/v1/txt2img", json=json.loads(BODY))
    assert answer.status_code == 408
    wait_ready(lambda: not engine.is_running.is_set(), 5)
