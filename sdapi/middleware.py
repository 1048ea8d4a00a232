"""What every request passes through, outermost first: log, CORS, gate, body limit.

Plain ASGI, so that large answers are not copied. Queues take many small requests, each of which
passes all but the gate: what is done here for every request is counted in microseconds.
"""

import logging
import secrets
import time
from datetime import datetime
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdapi.errors import BadRequest, SDAPIError, ShuttingDown, Unauthorized
from sdapi.logs import log_fields
from sdapi.metrics import Metrics
from sdapi.problems import error_response, json_response, unexpected_body
from sdapi.queue.inference import INTERNAL
from sdapi.security import Credentials

log = logging.getLogger(__name__)

#: of servers that can answer a handshake as they answer a request
_DENIAL = "websocket.http.response"
#: Open to everyone: a load balancer asks them, and they tell nothing.
_HEALTH = ("/healthz", "/readyz")
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
#: of the outermost passage, where one request passes twice or another server answered
_OWN_HEADERS = (b"x-process-time", b"x-request-id")
#: where credentials come from
_LOGIN = "/login"
#: They check credentials themselves: a service's own token, or a signature of the body. Finding out
#: where a service is needs none.
_OWN_GATE = (
    "/api/predict/",
    "/api/v1/servicediscovery/",
    "/exported/apis/eas.alibaba-inc.k8s.io/",
)
#: The signature of a portrait call covers its body, so its route looks at it.
_SIGNED = ("/api/v1/", "/batch_jobs/")


class BodyTooLarge(BadRequest):
    """A body of more bytes than the server takes."""

    status, code = 413, "body_too_large"


class RequestLog:
    """Gives a request its id and time, and turns what nobody caught into a 500."""

    def __init__(self, app: ASGIApp, *, prints: bool, metrics: Metrics) -> None:
        self.app = app
        self.prints = prints
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request_id = scope["sdapi.request_id"] = secrets.token_hex(16)
        if scope["type"] == "websocket":
            with log_fields(request_id=request_id):
                await self.app(scope, receive, _telling_refusal(scope, send))
            return
        started = time.perf_counter()
        status = 0

        async def timed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                taken = f"{time.perf_counter() - started:.4f}".rstrip("0").encode()
                own = zip(_OWN_HEADERS, (taken, request_id.encode()), strict=True)
                others = [h for h in message.get("headers", ()) if h[0].lower() not in _OWN_HEADERS]
                message = {**message, "headers": [*others, *own]}
            await send(message)

        with log_fields(request_id=request_id):
            try:
                await self.app(scope, receive, timed)
            except Exception as error:
                log.exception("request failed: %s %s", scope["method"], scope["path"])
                if status == 0:
                    response = json_response(unexpected_body(error, request_id), 500)
                    await response(scope, receive, timed)
            finally:
                self._count(scope, status, time.perf_counter() - started)
                if self.prints and scope["path"].startswith("/sdapi"):
                    self._print(scope, status, time.perf_counter() - started)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """By the route's template: paths that callers make up must not become figures."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.count_request(method, route, status, seconds)

    @staticmethod
    def _print(scope: Scope, status: int, seconds: float) -> None:
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S.%f")
        protocol = f"{scope.get('scheme', 'http')}/{scope.get('http_version', '1.1')}"
        client = (scope.get("client") or ("-",))[0]
        print(
            f"API {now} {status} {protocol} {scope['method']} {scope['path']} "
            f"{client} {seconds:.4f}",
            flush=True,
        )


class CrossOrigin(CORSMiddleware):
    """Starlette's, quick about requests that no page of another origin sent: most of all."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or any(name == b"origin" for name, _ in scope["headers"]):
            await super().__call__(scope, receive, send)
            return

        async def varying(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                vary = [value for name, value in headers if name.lower() == b"vary"]
                others = [header for header in headers if header[0].lower() != b"vary"]
                own = (b"vary", b", ".join([*vary, b"Origin"]))
                message = {**message, "headers": [*others, own]}
            await send(message)

        await self.app(scope, receive, varying)


class Gate:
    """Lets in who may, and nobody new while the server stops."""

    def __init__(self, app: ASGIApp, *, credentials: Credentials, state: Any) -> None:
        self.app = app
        self.credentials = credentials
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in _HEALTH or path.startswith(_OWN_GATE):
            await self.app(scope, receive, send)
            return
        error = self._refusal(scope, path)
        if error is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket" and _DENIAL not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
        else:
            response = error_response(error, scope.get("sdapi.request_id", ""))
            # The queue's clients are programs; a browser that meets it in a page must not ask.
            if isinstance(error, Unauthorized) and not path.startswith("/api/"):
                response.headers["www-authenticate"] = 'Basic realm="sdapi"'
            await response(scope, receive, send)

    def _refusal(self, scope: Scope, path: str) -> SDAPIError | None:
        if scope.get(INTERNAL):  # from this process: its caller was checked before
            return self._stopping()
        headers = Headers(scope=scope)
        try:
            if not path.startswith(_SIGNED):
                self.credentials.check(headers.get("authorization"))
        except Unauthorized as error:
            has_session = self.credentials.user_of_cookies(headers.get("cookie")) is not None
            if not has_session and path != _LOGIN:
                return error
        return self._stopping()

    def _stopping(self) -> SDAPIError | None:
        return ShuttingDown("the server is shutting down") if self.state.is_stopping else None


class BodyLimit:
    """Refuses bodies over a size, by their declared length or while they arrive."""

    def __init__(self, app: ASGIApp, *, limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = _declared_length(scope)
        if declared is None:
            await self._limited(scope, receive, send)
        elif declared > self.limit_bytes:
            await self._refuse(scope, receive, send)
        else:  # the server reads no more of a body than was declared
            await self.app(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what arrives; over the limit the application sees its client go, and we answer.

        An error raised from `receive` would be FastAPI's to answer, which says 400.
        """
        received = 0
        is_over = has_answered = False

        async def counted() -> Message:
            nonlocal received, is_over
            if is_over:
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.limit_bytes and not has_answered:
                    is_over = True
                    await self._refuse(scope, receive, send)
                    return {"type": "http.disconnect"}
            return message

        async def unless_refused(message: Message) -> None:
            nonlocal has_answered
            has_answered = True
            if not is_over:
                await send(message)

        try:
            await self.app(scope, counted, unless_refused)
        except Exception:
            if not is_over:  # else it is about the client that has gone
                raise

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = BodyTooLarge(self._sentence())
        response = error_response(error, Request(scope).scope.get("sdapi.request_id", ""))
        response.headers["connection"] = "close"
        await response(scope, receive, send)

    def _sentence(self) -> str:
        return f"the body is larger than {self.limit_bytes} bytes; --max-body-mb sets the limit"


def _telling_refusal(scope: Scope, send: Send) -> Send:
    """Log a handshake that is refused, in one line: that is the client's matter."""
    is_open = False

    async def told(message: Message) -> None:
        nonlocal is_open
        kind = message["type"]
        is_open = is_open or kind == "websocket.accept"
        if kind == "websocket.http.response.start":
            log.info("websocket refused with %d: %r", message["status"], scope["path"])
        elif kind == "websocket.close" and not is_open:  # which a server answers so
            log.info("websocket refused with 403: %r", scope["path"])
        await send(message)

    return told


def _declared_length(scope: Scope) -> int | None:
    """A body's length as its head says; None where it does not, or where that does not count."""
    declared = None
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":  # which counts before a length
            return None
        if name == b"content-length" and declared is None:
            declared = int(value) if value.isdigit() else None
    return declared
