"""What every request passes, around small applications."""

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from sdapi.metrics import Metrics
from sdapi.middleware import BodyLimit, RequestLog


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


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
