"""Watchers, their windows and what they commit."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketDisconnect

from sdapi.queue.stores.store import QueueStoreUnavailable
from tests.contract.conftest import Serve
from tests.contract.queue.calls import SINK, attributes, data, put


def watch(client: TestClient, url: str = SINK, headers: Any = None, **params: Any) -> Any:
    query = "&".join(f"{key}={value}" for key, value in ({"_watch_": "true"} | params).items())
    return client.websocket_connect(f"{url}?{query}", headers=headers or {})


def test_a_window_means_nothing_with_auto_commit(queue: TestClient):
    with watch(queue, _window_=0, _auto_commit_="true") as socket:
        for number in range(3):
            put(queue, data=b"%d" % number)
            assert data(json.loads(socket.receive_text())) == b"%d" % number


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


def test_with_auto_commit_the_window_is_ignored(queue: TestClient):
    put(queue)
    with watch(queue, _auto_commit_="true", _window_=0) as socket:
        assert json.loads(socket.receive_text())["index"] == 1


@pytest.mark.parametrize("header", ["X-EAS-QueueService-Uid", "X-EAS-QueueService-Gid"])
def test_a_name_that_is_too_long_is_refused_before_the_watch(queue: TestClient, header: str):
    headers = {header: "x" * 257}
    with (
        pytest.raises(WebSocketDenialResponse) as refusal,
        watch(queue, headers=headers),
    ):
        pass
    over_http = queue.get(f"{SINK}?_watch_=true", headers=headers)
    assert (refusal.value.status_code, over_http.status_code) == (400, 400)
    assert header.lower() in over_http.text


def test_a_watch_while_the_store_is_away_is_refused_with_503(
    queue: TestClient, monkeypatch: pytest.MonkeyPatch
):
    async def away(*_: Any) -> None:
        raise QueueStoreUnavailable("the store is away")

    app: Any = queue.app
    monkeypatch.setattr(app.state.queues.service.store, "join", away)
    with pytest.raises(WebSocketDenialResponse) as refusal, watch(queue):
        pass
    over_http = queue.get(f"{SINK}?_watch_=true")
    assert (refusal.value.status_code, over_http.status_code) == (503, 503)
    assert over_http.text == "the store is away"
