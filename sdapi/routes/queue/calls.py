"""What all calls of the queue have in common: who asks, for what, and how answers look.

Answers and errors are plain text here, as the clients read them.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

import orjson
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope

from sdapi.errors import SDAPIError
from sdapi.queue.protocol import wire
from sdapi.queue.protocol.parameters import BadParameter, Parameters
from sdapi.queue.server import QueueServer
from sdapi.queue.service import Identity, PayloadTooLarge, QueueService
from sdapi.queue.stores.store import Item
from sdapi.security import Credentials

#: of the addresses of all queues
PREFIX = "/api/predict/"
REQUEST_ID_HEADER = "X-Eas-Queueservice-Request-Id"
INDEX_HEADER = "X-Eas-Queueservice-Index"
DELETED_HEADER = "X-Eas-Queueservice-Deleted"
_REAR_HEADER = "x-eas-queueservice-access-rear"
_USER_HEADERS = ("x-eas-queueservice-uid", "x-eas-queueservice-redis-uid")
_GROUP_HEADERS = ("x-eas-queueservice-gid", "x-eas-queueservice-redis-gid")
_NOT_IN_HEADERS = re.compile(r"[^ -~]")
_DEFAULT_GROUP = "eas"
_MAX_IDENTITY = 256


@dataclass(frozen=True, slots=True)
class Served:
    """What the queues' addresses are answered with; `hold_s` holds back an empty answer."""

    queues: QueueServer
    credentials: Credentials
    hold_s: float
    is_stopping: Callable[[], bool]


class Call:
    """One request or watch. `headers` are by names in lower case, of repeated ones the first.

    Not Starlette's request, whose headers are searched from the beginning for every look.
    """

    __slots__ = ("_body", "headers", "method", "receive", "scope", "served")

    def __init__(self, scope: Scope, receive: Receive, served: Served) -> None:
        self.scope = scope
        self.receive = receive
        self.served = served
        self.method: str = scope.get("method", "GET")
        self.headers: dict[str, str] = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in reversed(scope["headers"])
        }
        self._body: bytes | None = None

    @property
    def service(self) -> QueueService:
        return self.served.queues.service

    def signed_paths(self) -> list[str]:
        """What the sender may have signed: more or less of the address, as sent or decoded."""
        raw: str = self.scope.get("raw_path", b"").decode("latin-1")
        found = dict[str, None]()
        for path in (HTTPConnection(self.scope).url.path, raw, self.scope["path"]):
            name = path.partition(PREFIX)[2].partition("/")[0]
            found |= {path: None, PREFIX + name: None}
            if query := self.scope["query_string"].decode("latin-1"):
                found[f"{path}?{query}"] = None
        return list(found)

    def rest(self, decoded: str) -> str:
        """The end of the path as it came, in its percent escapes; `decoded` is what it means."""
        raw = (self.scope.get("raw_path") or b"").decode("latin-1")
        _, *parts = raw.removeprefix(self.scope.get("root_path", "")).split("/", 4)
        rest = parts[3] if len(parts) > 3 else ""
        return rest if unquote(rest) == decoded else quote(decoded)

    def parameters(self) -> Parameters:
        """What the query string says; raises `BadParameter`."""
        try:
            return Parameters.parse(self.scope["query_string"].decode())
        except UnicodeDecodeError as error:
            raise BadParameter("the query string is no percent-encoded UTF-8") from error

    def identity(self) -> Identity:
        """The caller's group and user; the short header names count before the older long ones."""
        return Identity(
            self._first(_GROUP_HEADERS) or _DEFAULT_GROUP,
            self._first(_USER_HEADERS) or str(uuid.uuid4()),
        )

    def _first(self, names: tuple[str, ...]) -> str:
        found = next((value for name in names if (value := self.headers.get(name))), "")
        if len(found) > _MAX_IDENTITY:
            raise BadParameter(f"{names[0]} has at most {_MAX_IDENTITY} characters")
        return found

    def is_rear(self) -> bool:
        """Whether the dead letters are meant."""
        return self.headers.get(_REAR_HEADER, "").lower() == "true"

    def takes_protobuf(self) -> bool:
        """Whether the caller wants protobuf rather than JSON."""
        return wire.PROTOBUF in self.headers.get("accept", "").lower()

    async def body(self, limit: int | None) -> bytes:
        """The body, read no further than the limit; kept, so that it can be asked for again.

        Without a limit of the queue's it has that of all requests.
        """
        if self._body is None:
            self._body = await self._read(limit)
        return self._body

    async def read_again(self) -> Receive:
        """As `receive` was before anybody read the body: it gives that, then what comes."""
        first: list[Message] = [{"type": "http.request", "body": await self.body(None)}]

        async def receive() -> Message:
            return first.pop() if first else await self.receive()

        return receive

    async def _read(self, limit: int | None) -> bytes:
        body, is_more = b"", True
        parts: list[bytes] = []
        size = 0
        while is_more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise BadParameter("the client went away in the middle of its body")
            body, is_more = message.get("body", b""), message.get("more_body", False)
            parts.append(body)
            size += len(body)
            if limit is not None and size > limit:
                raise PayloadTooLarge(f"the data is larger than {limit} bytes")
        return body if len(parts) == 1 else b"".join(parts)


async def until_disconnected(receive: Receive) -> None:
    """Return when a request's client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def text_error(error: SDAPIError) -> Response:
    """One line of plain text; never with `Retry-After`, on which clients sleep (contract 6.4)."""
    return PlainTextResponse(error.detail, error.status)


def frame_of(item: Item) -> wire.Frame:
    """An item as it goes over the wire."""
    return wire.Frame(item.index, item.tags, item.data, item.message)


def header_text(text: str) -> str:
    """A text as a header can carry it, in printable ASCII."""
    return _NOT_IN_HEADERS.sub("?", text)


def ok(headers: Mapping[str, str] | None = None) -> Response:
    """What a call without a result answers."""
    return PlainTextResponse("OK", headers=headers)


def json_answer(content: object) -> Response:
    """An answer in JSON."""
    return Response(orjson.dumps(content), media_type="application/json")
