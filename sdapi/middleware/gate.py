"""Who may come in, and that nobody new does while the server stops."""

from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sdapi.errors import SDAPIError, ShuttingDown, Unauthorized
from sdapi.problems import error_response
from sdapi.queue.dispatching.inference import INTERNAL
from sdapi.security import Credentials

#: of servers that can answer a handshake as they answer a request
_DENIAL = "websocket.http.response"
#: Open to everyone: a load balancer asks them, and they tell nothing.
_HEALTH = ("/healthz", "/readyz")
#: where credentials come from
_LOGIN = "/login"
#: They check credentials themselves: a service's own token, or a signature of the body. Finding out
#: where a service is needs none.
_OWN_GATE = (
    "/api/predict/",
    "/api/v1/servicediscovery/",
    "/exported/apis/eas.alibaba-inc.k8s.io/",
)


class Gate:
    """Lets in who may, and nobody new while the server stops."""

    def __init__(
        self, app: ASGIApp, *, credentials: Credentials, state: Any, signed: tuple[str, ...] = ()
    ) -> None:
        """`signed` begin paths whose routes refuse by themselves, in a shape of their own.

        A signature covers the body, which is not read here.
        """
        self.app = app
        self.own_gate = (*_OWN_GATE, *signed)
        self.credentials = credentials
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in _HEALTH or path.startswith(self.own_gate):
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
            self.credentials.check(headers.get("authorization"))
        except Unauthorized as error:
            has_session = self.credentials.user_of_cookies(headers.get("cookie")) is not None
            if not has_session and path != _LOGIN:
                return error
        return self._stopping()

    def _stopping(self) -> SDAPIError | None:
        return ShuttingDown("the server is shutting down") if self.state.is_stopping else None
