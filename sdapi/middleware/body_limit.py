"""Bodies have a size that none may exceed."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdapi.errors import BadRequest, SDAPIError
from sdapi.problems import error_response


class BodyTooLarge(BadRequest):
    """A body of more bytes than the server takes."""

    status, code = 413, "body_too_large"


class BodyLimit:
    """Refuses bodies over a size, by their declared length or while they arrive.

    `answer` is given the error and the request's id.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit_bytes: int,
        answer: Callable[[SDAPIError, str], Response] = error_response,
    ) -> None:
        self.app = app
        self.limit_bytes = limit_bytes
        self.answer = answer

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
        response = self.answer(error, Request(scope).scope.get("sdapi.request_id", ""))
        response.headers["connection"] = "close"
        await response(scope, receive, send)

    def _sentence(self) -> str:
        return f"the body is larger than {self.limit_bytes} bytes; --max-body-mb sets the limit"


def _declared_length(scope: Scope) -> int | None:
    """A body's length as its head says; None where it does not, or where that does not count."""
    declared = None
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":  # which counts before a length
            return None
        if name == b"content-length" and declared is None:
            declared = int(value) if value.isdigit() else None
    return declared
