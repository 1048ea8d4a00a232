"""The outermost passage: a request's id, its time, and a 500 for what nobody caught."""

import logging
import secrets
import time
from datetime import datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdapi.logs import log_fields
from sdapi.metrics import Metrics
from sdapi.problems import json_response, unexpected_body

log = logging.getLogger(__name__)

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
#: of the outermost passage, where one request passes twice or another server answered
_OWN_HEADERS = (b"x-process-time", b"x-request-id")


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
