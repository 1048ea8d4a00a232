"""Calling what does the work, whatever it is."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from starlette.types import Receive, Scope, Send

#: marks a request as this process's own, which its gate lets through; no client can set it
INTERNAL = "sdapi.internal"
#: what a synchronous caller is told
NOT_READY = "the inference program is not ready"

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


@dataclass(frozen=True, slots=True)
class Call:
    """`POST <path>?<query>` with a body; the path as it is on the wire, in percent escapes."""

    path: str
    query: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    body: bytes
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


def failure(status: int, text: str) -> Answer:
    """What stands for an answer that there is none of."""
    return Answer(status, orjson.dumps({"error": text}), "application/json")


class NotUp(ConnectionError):
    """Nothing takes calls there now; the call has not been made."""


class Inference(Protocol):
    """What a dispatcher calls. Cancelling a call ends the work."""

    async def is_ready(self) -> bool:
        """Whether its work can be done now; until then items wait."""
        ...

    async def call(self, call: Call) -> Answer:
        """Raises `NotUp`, and `ConnectionError` when the program went away before it answered."""
        ...

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of a synchronous service, as an ASGI application does."""
        ...

    async def close(self) -> None:
        """End its connections; nothing is called afterwards."""
        ...


def type_header(call: Call) -> list[tuple[bytes, bytes]]:
    """The content type of a call as a header, if it has one."""
    text = call.content_type.encode("latin-1", errors="replace")
    return [(b"content-type", text)] if text else []
