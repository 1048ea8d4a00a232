"""Errors on the wire: one shape for each kind (design 3a, webui-api 2)."""

import json
import logging
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from sdapi.errors import FINAL_HEADER, TRIED_HEADER, SDAPIError, UnreadableBody
from sdapi.schemas.validation import validation_body
from sdapi.services.generation.answering import url_mode
from sdapi.services.generation.eas import text_field_of

log = logging.getLogger(__name__)

#: what FastAPI says of a body that it cannot parse; routes of extensions have 400s of their own
_UNREADABLE = "There was an error parsing the body"


def json_response(
    content: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """JSON bytes; what orjson refuses, huge integers and lone surrogates, takes the slow way."""
    try:
        data = orjson.dumps(content)
    except TypeError:
        data = json.dumps(content, default=str).encode()
    return Response(data, status, headers, media_type="application/json")


def error_body(error: SDAPIError, request_id: str) -> dict[str, Any]:
    """The webui's four keys and our two."""
    return {
        "error": "HTTPException",
        "detail": error.detail,
        "body": "",
        "errors": "",
        "code": error.code,
        "request_id": request_id,
        **({"hint": error.sentence} if error.place else {}),
    }


def error_response(error: SDAPIError, request_id: str) -> Response:
    """An error as its answer."""
    return json_response(error_body(error, request_id), error.status, error_headers(error))


def error_headers(error: SDAPIError) -> dict[str, str]:
    """`Retry-After` where waiting helps, and what a queue makes of it."""
    if error.retry_after_s is None:
        return {}
    tried = {TRIED_HEADER: "1"} if error.was_tried else {}
    return {"retry-after": str(error.retry_after_s), **tried}


def request_id_of(request: Request) -> str:
    """The id that the request log gave a request; empty outside of it."""
    return str(request.scope.get("sdapi.request_id", ""))


def install_handlers(app: FastAPI) -> None:
    """Answer every exception in its shape; the unexpected shows its class name and nothing else."""

    async def on_sdapi_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, SDAPIError)
        return error_response(error, request_id_of(request))

    async def on_validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        body = validation_body(error)
        if text_field_of(error.body, "save_dir") is not None:
            id_task = text_field_of(error.body, "id_task")
            return url_failure(_first_sentence(body), 422, id_task)
        return json_response(body, 422)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == HTTPStatus.BAD_REQUEST and error.detail == _UNREADABLE:
            return error_response(_unreadable(error), request_id_of(request))
        return json_response({"detail": error.detail}, error.status_code, dict(error.headers or {}))

    app.add_exception_handler(SDAPIError, on_sdapi_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)


def _unreadable(error: HTTPException) -> UnreadableBody:
    """FastAPI's error for a body, with the reason that it keeps to itself."""
    match error.__cause__:
        case UnicodeDecodeError() as cause:
            reason = f": it is not UTF-8 at byte {cause.start}"
        case RecursionError():
            reason = ": its brackets are nested too deeply"
        case ValueError():
            reason = ": it has a number with too many digits"
        case _:
            reason = ""
    return UnreadableBody(f"{error.detail}{reason}")


def unexpected_body(error: Exception, request_id: str) -> dict[str, Any]:
    """What a defect of ours shows: its class name; the rest is in the log."""
    return {
        "error": type(error).__name__,
        "detail": "",
        "body": "",
        "errors": "",
        "code": "internal_error",
        "request_id": request_id,
    }


def url_failure(
    sentence: str,
    status: int,
    id_task: str | None,
    headers: dict[str, str] | None = None,
    total_time_s: float = 0.0,
) -> Response:
    """A failure in URL mode's shape."""
    content = url_mode.answer(
        id_task=id_task, status=status, error=sentence, total_time_s=total_time_s
    )
    return json_response(content, status, headers)


def url_pending(error: url_mode.UrlPending) -> Response:
    """Stored and named, but not delivered: the last word, so that a queue does not draw again."""
    return json_response(error.body, error.status, {FINAL_HEADER: "1"})


def _first_sentence(body: dict[str, Any]) -> str:
    first = body["detail"][0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return f"{where}: {first['msg']}"
