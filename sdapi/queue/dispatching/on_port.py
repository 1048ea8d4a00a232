"""Calling a program on a port of its own."""

import asyncio
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
from starlette.types import Receive, Scope, Send

from sdapi.queue.config.spec import ServiceSpec
from sdapi.queue.dispatching.inference import Answer, Call, NotUp, failure, type_header
from sdapi.queue.dispatching.relay import Relay

_LOOK_S = 5.0
#: for the program to take a connection; how long it may work is its service's `rpc.keepalive`
_CONNECT_S = 5.0
#: calls of a synchronous service at a time; more wait for a place, as long as they may work
_SYNC_CALLS = 256


class OnPort:
    """A program that listens on a loopback port, as a container of the service JSON does."""

    def __init__(self, spec: ServiceSpec) -> None:
        self._port = spec.container.port
        # Callers share it, so it remembers nothing of one for the next: no cookies. Nor does it
        # keep connections: a program may close one just when it is used again, which would cost a
        # delivery, and a new one on the loopback costs next to nothing. No TLS, whose certificates
        # take a tenth of a second to read. The dispatcher limits its calls itself.
        self._client = httpx.AsyncClient(
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx.Limits(
                max_connections=None if spec.is_async else _SYNC_CALLS,
                max_keepalive_connections=0,
            ),
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            trust_env=False,
            verify=False,
        )
        self._relay = Relay(spec, self._client)

    async def is_ready(self) -> bool:
        try:
            async with asyncio.timeout(_LOOK_S):
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # TimeoutError among them
            return False
        writer.close()
        return True

    async def call(self, call: Call) -> Answer:
        target = call.path + (f"?{call.query}" if call.query else "")
        try:
            answer = await self._client.post(
                f"http://127.0.0.1:{self._port}",
                content=call.body,
                headers=type_header(call),
                extensions={"target": target.encode()},  # as it is: a URL would be normalized
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotUp(f"nothing answers on port {self._port}: {error}") from error
        except httpx.TransportError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        except httpx.DecodingError as error:
            return failure(502, f"the program's answer cannot be decoded: {error}")
        content_type = answer.headers.get("content-type", "")
        return Answer(answer.status_code, answer.content, content_type, dict(answer.headers))

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._relay(scope, receive, send)

    async def close(self) -> None:
        await self._client.aclose()
