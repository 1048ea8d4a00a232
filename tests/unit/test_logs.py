import io
import json
import logging
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from sdapi.logs import configure_logging, log_fields
from sdapi.metrics import Metrics
from sdapi.middleware.request_log import RequestLog


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_json_lines_carry_the_fields_of_their_task(stream: io.StringIO):
    configure_logging("INFO", "json", stream)
    with log_fields(request_id="r1"), log_fields(task_id="t1"):
        logging.getLogger("sdapi.x").info("drew %d", 2, extra={"seconds": 1.5})
    logging.getLogger("sdapi.x").info("after")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["message"] == "drew 2"
    assert (first["request_id"], first["task_id"], first["seconds"]) == ("r1", "t1", 1.5)
    assert first["level"] == "INFO"
    assert first["time"].endswith("Z")
    assert "request_id" not in second


def test_an_exception_stays_one_json_line(stream: io.StringIO):
    configure_logging("INFO", "auto", stream)
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        logging.getLogger("sdapi").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: bad" in json.loads(line)["exception"]


def test_plain_lines_are_short(stream: io.StringIO):
    configure_logging("INFO", "plain", stream)
    with log_fields(task_id="t1"):
        logging.getLogger("sdapi").warning("careful")
        logging.getLogger("sdapi").debug("hidden")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("WARNING: careful task_id=t1")


def test_chatty_libraries_are_quiet_unless_they_warn(stream: io.StringIO):
    configure_logging("DEBUG", "plain", stream)
    logging.getLogger("httpx").info("noise")
    logging.getLogger("httpx").warning("news")
    assert "noise" not in stream.getvalue()
    assert "news" in stream.getvalue()


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    logging.getLogger("sdapi.x").info("at work")
    raise ZeroDivisionError


def test_every_line_of_a_request_carries_its_id(stream: io.StringIO):
    configure_logging("INFO", "json", stream)
    client = TestClient(RequestLog(failing, prints=False, metrics=Metrics()))
    answers = [client.get("/x") for _ in range(2)]
    logging.getLogger("sdapi.x").info("after")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    lines = [line for line in lines if line["logger"].startswith("sdapi")]
    first, second = (answer.headers["x-request-id"] for answer in answers)
    assert [line["message"] for line in lines[:2]] == ["at work", "request failed: GET /x"]
    assert [line.get("request_id") for line in lines] == [first, first, second, second, None]
    assert [answer.status_code for answer in answers] == [500, 500]
