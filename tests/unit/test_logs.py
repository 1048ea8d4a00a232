import io
import json
import logging
from collections.abc import Iterator

import pytest

from sdapi.logs import configure_logging, log_fields


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
