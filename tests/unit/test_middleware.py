"""What every request passes, around small applications."""

import logging
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from sdapi.metrics import Metrics
from sdapi.middleware.body_limit import BodyLimit
from sdapi.middleware.request_log import RequestLog


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


async def greeting(scope: Scope, receive: Receive, send: Send) -> None:
    socket = WebSocket(scope, receive, send)
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


async def closing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})


async def denying(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("who are you?", 401)(scope, receive, send)


def parts(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b"x"


def test_a_chunked_body_is_counted_whatever_length_it_declares():
    client = TestClient(BodyLimit(reading, limit_bytes=10))
    headers = {"content-length": "1", "transfer-encoding": "chunked"}
    assert client.post("/", content=parts(11), headers=headers).status_code == 413
    assert client.post("/", content=parts(10), headers=headers).text == "10"


def test_a_declared_length_over_the_limit_is_refused_before_it_is_read():
    client = TestClient(BodyLimit(reading, limit_bytes=10))
    assert client.post("/", content=b"x" * 11).status_code == 413
    assert client.post("/", content=b"x" * 10).text == "10"


def test_a_request_that_passes_twice_has_one_id_and_one_time():
    metrics = Metrics()
    inner = RequestLog(reading, prints=False, metrics=metrics)
    answer = TestClient(RequestLog(inner, prints=False, metrics=metrics)).get("/")
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert len(answer.headers.get_list("x-process-time")) == 1


@pytest.mark.parametrize(("app", "status"), [(closing, 403), (denying, 401)])
def test_a_refused_handshake_is_one_line_without_its_query(
    app: object, status: int, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    client = TestClient(RequestLog(app, prints=False, metrics=Metrics()))  # type: ignore[arg-type]
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/watch%0Aforged?token=secret"),
    ):
        pass
    (line,) = [each for each in caplog.records if each.name.startswith("sdapi")]
    assert line.levelno == logging.INFO
    assert line.getMessage() == f"websocket refused with {status}: '/watch\\nforged'"


def test_a_websocket_that_was_open_is_not_called_refused(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    client = TestClient(RequestLog(greeting, prints=False, metrics=Metrics()))
    with client.websocket_connect("/watch") as socket:
        assert socket.receive_text() == "hello"
    assert not [each for each in caplog.records if each.name.startswith("sdapi")]
