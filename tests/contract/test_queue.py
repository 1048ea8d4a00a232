"""The queue's wire contract, request by request."""

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketDisconnect

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.fakes import FakeEngine
from tests.servers import wait_ready

Serve = Callable[..., TestClient]
U = "/api/predict/svc"
SINK = f"{U}/sink"
BODY = b'{"prompt": "a cat", "width": 64, "height": 64, "seed": 7}'


@pytest.fixture
def queue(serve: Serve) -> TestClient:
    """A server of the service `svc`."""
    return serve(services=("svc",))


def put(client: TestClient, url: str = SINK, data: bytes = b"abc", **params: Any) -> httpx.Response:
    answer = client.post(url, content=data, params=params)
    assert answer.status_code == 200, answer.text
    return answer


def attributes(client: TestClient, url: str = SINK) -> dict[str, str]:
    return client.get(url, params={"_attrs_": "true"}).json()


def items(client: TestClient, url: str = SINK, **params: Any) -> list[dict[str, Any]]:
    given = {"_raw_": "false", "_auto_delete_": "false", "_length_": "100"} | params
    answer = client.get(url, params=given)
    return answer.json() if answer.status_code == 200 else []


def data(item: dict[str, Any]) -> bytes:
    return base64.b64decode(item["data"])


# --- put and get -----------------------------------------------------------------------------


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


def test_nothing_in_time_is_held_back_so_that_the_client_gives_up_first(queue: TestClient):
    began = time.monotonic()
    assert queue.get(SINK, params={"_timeout_": "200ms"}).status_code == 204
    assert 0.44 < time.monotonic() - began < 2
    began = time.monotonic()
    assert queue.get(SINK, params={"_timeout_": "0s"}).status_code == 204
    assert time.monotonic() - began < 0.2


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


# --- the other verbs -------------------------------------------------------------------------


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


# --- attributes ------------------------------------------------------------------------------


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


# --- what goes wrong -------------------------------------------------------------------------


BAD_GETS = [
    *("_index_=x", "_index_=-2", "_index_=99999999999999999999", "_length_=0", "_length_=-1"),
    *("_length_=1e3", "_length_=99999999", "_timeout_=-5s", "_timeout_=soon", "_timeout_=2h"),
    *("_raw_=maybe", "_auto_delete_=2", "k=%ff", "_watch_=true&_window_=0"),
    *("&".join(f"t{i}=" for i in range(65)), "t=" + "x" * 9000, "_search_=true&_index_=1.5"),
]
BAD_OTHERS = [
    *(("PUT", ""), ("PUT", "_indexes_="), ("PUT", "_indexes_=1,x"), ("DELETE", "")),
    *(("DELETE", "_indexes_=-1"), ("DELETE", "_trunc_=true&_index_=-1")),
    *(("POST", "_priority_=-1"), ("POST", "_priority_=x"), ("POST", "requestId=" + "x" * 300)),
]


def test_a_malformed_parameter_is_one_line_of_400(queue: TestClient):
    answers = {query: queue.get(f"{SINK}?{query}") for query in BAD_GETS} | {
        f"{method} {query}": queue.request(method, f"{SINK}?{query}")
        for method, query in BAD_OTHERS
    }
    assert {query for query, answer in answers.items() if answer.status_code != 400} == set()
    assert all(a.headers["content-type"].startswith("text/plain") for a in answers.values())
    assert all(a.text and "\n" not in a.text for a in answers.values())


def test_an_unknown_service_is_404(queue: TestClient):
    assert queue.get("/api/predict/nobody?_attrs_=true").status_code == 404
    assert queue.post("/api/predict/group.nobody/sink", content=b"x").status_code == 404
    assert queue.post("/api/predict/group.svc/sink", content=b"x").status_code == 200


def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_413(
    serve: Serve, tmp_path: Path
):
    client = serve(service_files=(service_file(tmp_path),))
    assert client.post("/api/predict/small/sink", content=b"x" * 8192).status_code == 200
    refused = client.post("/api/predict/small/sink", content=b"x" * 8193)
    assert refused.status_code == 413
    assert "8192" in refused.text
    assert "retry-after" not in refused.headers


def service_file(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "metadata": {"name": "small", "type": "Async"},
        "containers": [{"image": "x/stable-diffusion-webui:3.2", "port": 8000}],
    }
    path = folder / "service.json"
    path.write_text(json.dumps(content | changes))
    return path


def test_queue_answers_carry_what_every_answer_does(serve: Serve):
    client = serve(
        services=("svc",), cors_origins=("https://studio.example",), max_body_bytes=10_000
    )
    plain = put(client)
    assert (len(plain.headers["x-request-id"]), plain.headers["vary"]) == (32, "Origin")
    assert float(plain.headers["x-process-time"]) < 10
    page = {"origin": "https://studio.example"}
    answer = client.post(SINK, content=b"abc", headers=page)
    assert answer.headers["access-control-allow-origin"] == "https://studio.example"
    preflight = client.options(SINK, headers=page | {"access-control-request-method": "POST"})
    assert (preflight.status_code, preflight.text) == (200, "OK")
    other = client.post(SINK, content=b"abc", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    large = client.post(SINK, content=b"x" * 10_001)
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    counted = client.get("/metrics").text
    labels = 'method="POST",route="/api/predict/{name}/{rest:path}",status="200"'
    assert f"sdapi_requests_total{{{labels}}} 3.0" in counted


@pytest.mark.parametrize(("sink_kb", "is_told"), [(None, True), (17, True), (18, False)])
def test_the_start_warns_of_an_output_queue_too_small_for_portraits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sink_kb: int | None, is_told: bool
):
    path = service_file(
        tmp_path,
        containers=[{"image": "x/photog_pub:infer.1.0.0.pub", "port": 7861}],
        queue={} if sink_kb is None else {"sink": {"max_payload_size_kb": sink_kb}},
    )
    build_app(Settings(data_dir=tmp_path, service_files=(path,)))
    told = [r.getMessage() for r in caplog.records if "max_payload_size_kb" in r.getMessage()]
    assert [text.partition(":")[0] for text in told] == ["small"] * is_told


def test_a_full_queue_is_429_without_retry_after(serve: Serve, tmp_path: Path):
    queue = {
        "memory": 1,
        "source": {"max_payload_size_kb": 400},
        "sink": {"max_payload_size_kb": 400},
    }
    client = serve(service_files=(service_file(tmp_path, queue=queue),))
    statuses = [
        client.post("/api/predict/small/sink", content=b"x" * 300_000).status_code for _ in range(3)
    ]
    assert statuses == [200, 429, 429]


# --- authorization ---------------------------------------------------------------------------


@pytest.fixture
def guarded(serve: Serve) -> TestClient:
    return serve(services=("svc", "other"), token="all==", service_tokens={"svc": "dG9rZW4="})


def test_a_services_token_opens_it_in_every_form(guarded: TestClient):
    for header in ("dG9rZW4=", "Bearer dG9rZW4=", "all=="):
        for url in (U, SINK):
            answer = guarded.get(f"{url}?_attrs_=true", headers={"authorization": header})
            assert (header, answer.status_code) == (header, 200)


def test_a_wrong_token_is_401_with_the_text_of_the_original(guarded: TestClient):
    for header in ("", "wrong", "Bearer x", "EAS x", "Basic eDp5", "dG9rZW4"):
        headers = {"authorization": header} if header else {}
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = guarded.request(method, f"{U}?_indexes_=1", headers=headers)
            assert (answer.status_code, answer.text) == (401, "Authorization Failed")
            assert "www-authenticate" not in answer.headers


def test_a_services_token_opens_no_other_service_nor_the_api(guarded: TestClient):
    headers = {"authorization": "dG9rZW4="}
    assert guarded.get("/api/predict/other?_attrs_=true", headers=headers).status_code == 401
    assert guarded.get("/sdapi/v1/samplers", headers=headers).status_code == 401


def test_a_signature_is_checked_against_the_body(guarded: TestClient):
    headers = {
        "authorization": "EAS MxeHiHj+9kIEEEuBxiTyoGBtvFg=",
        "content-type": "application/octet-stream",
        "date": "Mon, 01 Jan 2024 00:00:00 GMT",
    }
    assert guarded.post(U, content=b'{"prompt":"a"}', headers=headers).status_code == 200
    assert guarded.post(U, content=b'{"prompt":"b"}', headers=headers).status_code == 401


def test_discovery_is_open_and_tells_the_address_that_was_asked(guarded: TestClient):
    for path in (
        "/api/v1/servicediscovery/upstreams/svc",
        "/exported/apis/eas.alibaba-inc.k8s.io/v1/upstreams/svc?internal=true",
    ):
        answer = guarded.get(path, headers={"host": "10.0.0.7:8123"}).json()
        assert answer == {"endpoints": {"items": [{"ip": "10.0.0.7", "port": 8123, "weight": 100}]}}
    assert guarded.get("/api/v1/servicediscovery/upstreams/nobody").status_code == 404


# --- watching --------------------------------------------------------------------------------


def watch(client: TestClient, url: str = SINK, headers: Any = None, **params: Any) -> Any:
    query = "&".join(f"{key}={value}" for key, value in ({"_watch_": "true"} | params).items())
    return client.websocket_connect(f"{url}?{query}", headers=headers or {})


def test_a_watcher_gets_items_within_its_window_and_commits_free_it(queue: TestClient):
    with watch(queue, _window_=2) as socket:
        for text in (b"a", b"b", b"c"):
            put(queue, data=text)
        assert [data(json.loads(socket.receive_text())) for _ in range(2)] == [b"a", b"b"]
        assert "Pending: 2, Status: Running" in attributes(queue)["consumers.list.[0]"]
        queue.put(f"{SINK}?_indexes_=1")
        assert data(json.loads(socket.receive_text())) == b"c"
        queue.put(f"{SINK}?_indexes_=2,3")
    assert attributes(queue)["stream.length"] == "0"


def test_with_auto_commit_items_are_gone_when_they_are_sent(queue: TestClient):
    for number in range(100):
        put(queue, data=str(number).encode())
    with watch(queue, _auto_commit_="true") as socket:
        received = [data(json.loads(socket.receive_text())) for _ in range(100)]
        assert "Window: 0, Slots: 0, AutoCommit: true" in attributes(queue)["consumers.list.[0]"]
    assert received == [str(number).encode() for number in range(100)]
    assert attributes(queue)["stream.length"] == "0"


def test_what_a_watcher_did_not_commit_goes_to_the_next(queue: TestClient):
    put(queue)
    for _ in range(2):
        with watch(queue) as socket:
            assert json.loads(socket.receive_text())["index"] == 1


def test_a_watchers_tags_and_start_choose_its_items(queue: TestClient):
    put(queue, data=b"old", k="v")
    with watch(queue, _index_="-1", k="v") as socket:
        put(queue, data=b"other")
        put(queue, data=b"new", k="v")
        assert data(json.loads(socket.receive_text())) == b"new"
        assert ", Tags: tags[k=v]" in attributes(queue)["consumers.list.[0]"]


def test_index_only_sends_no_data(queue: TestClient):
    put(queue, k="v")
    with watch(queue, _index_only_="true") as socket:
        item = json.loads(socket.receive_text())
    assert (item["data"], item["tags"]["k"]) == ("", "v")


def test_protobuf_watchers_get_binary_frames(queue: TestClient):
    put(queue)
    with watch(queue, headers={"accept": "application/vnd.google.protobuf"}) as socket:
        assert socket.receive_bytes()[:2] == b"\x08\x01"


def test_a_second_connection_of_the_same_name_takes_over(queue: TestClient):
    ids = {"X-EAS-QueueService-Uid": "me", "X-EAS-QueueService-Redis-Uid": "not me"}
    put(queue)
    with watch(queue, headers=ids) as first:
        first.receive_text()
        with watch(queue, headers=ids) as second:
            assert json.loads(second.receive_text())["index"] == 1
            with pytest.raises(WebSocketDisconnect):
                first.receive_text()
        assert attributes(queue)["consumers.list.[0]"].startswith("Id: eas.me,")


def test_what_a_watcher_sends_means_nothing(queue: TestClient):
    with watch(queue) as socket:
        socket.send_text("garbage")
        socket.send_bytes(b"\xff" * 1000)
        put(queue)
        assert json.loads(socket.receive_text())["index"] == 1


def test_a_bad_handshake_is_refused_with_its_status(serve: Serve):
    client = serve(services=("svc",), token="T")
    for url, token, status in (
        (SINK, "wrong", 401),
        ("/api/predict/nobody", "T", 404),
        (f"{SINK}?_window_=x", "T", 400),
    ):
        with (
            pytest.raises(WebSocketDenialResponse) as refusal,
            client.websocket_connect(url, headers={"authorization": token}),
        ):
            pass
        assert refusal.value.status_code == status


# --- inference -------------------------------------------------------------------------------


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


# --- synchronous services --------------------------------------------------------------------


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
