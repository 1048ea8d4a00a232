"""How log lines look: JSON for machines, plain for a terminal; both with their task's fields."""

import json
import logging
import sys
import time
import traceback
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

_FIELDS: ContextVar[Mapping[str, Any]] = ContextVar("log_fields", default={})  # noqa: B039 (never changed in place)
_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: they say at INFO what nobody who draws pictures asked
_TALKATIVE = ("httpx", "httpcore", "urllib3", "PIL", "websockets", "asyncio", "oss2", "uvicorn")


@contextmanager
def log_fields(**fields: Any) -> Generator[None, None, None]:
    """Within it every log line of this task carries the fields: request_id, task_id, …"""
    token = _FIELDS.set({**_FIELDS.get(), **fields})
    try:
        yield
    finally:
        _FIELDS.reset(token)


def configure_logging(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send everything to one stream; `auto` means plain on a terminal and JSON elsewhere."""
    target = sys.stderr if stream is None else stream
    is_plain = log_format == "plain" or (log_format == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(PlainFormatter() if is_plain else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    own = {key: value for key, value in vars(record).items() if key not in _OWN_ATTRIBUTES}
    own.pop("color_message", None)  # uvicorn's, the message once more
    return {**_FIELDS.get(), **own}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return json.dumps(line, ensure_ascii=False, default=str)


class PlainFormatter(logging.Formatter):
    """For people: time, level when it matters, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        fields = "".join(f" {key}={value}" for key, value in _extra(record).items())
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{moment} {level}{record.getMessage()}{fields}"
        if record.exc_info and record.exc_info[0]:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return text
