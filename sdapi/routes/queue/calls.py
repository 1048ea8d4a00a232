"""What all calls of the queue have in common: who asks, for what, and how answers look.

Answers and errors are plain text here, as the clients read them.
"""

import uuid

import orjson
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response

from sdapi.errors import SDAPIError
from sdapi.queue.protocol import wire
from sdapi.queue.protocol.parameters import BadParameter
from sdapi.queue.server import QueueServer
from sdapi.queue.service import Identity, PayloadTooLarge
from sdapi.queue.stores.store import Item
from sdapi.security import Credentials

REQUEST_ID_HEADER = "X-Eas-Queueservice-Request-Id"
INDEX_HEADER = "X-Eas-Queueservice-Index"
_REAR_HEADER = "X-EAS-QueueService-Access-Rear"
_USER_HEADERS = ("X-EAS-QueueService-Uid", "X-EAS-QueueService-Redis-Uid")
_GROUP_HEADERS = ("X-EAS-QueueService-Gid", "X-EAS-QueueService-Redis-Gid")
_DEFAULT_GROUP = "eas"
_MAX_IDENTITY = 256


def queues_of(connection: HTTPConnection) -> QueueServer:
    """The queues of the application that was called."""
    return connection.app.state.queues


def credentials_of(connection: HTTPConnection) -> Credentials:
    """The credentials of the application that was called."""
    return connection.app.state.services.credentials


def text_error(error: SDAPIError) -> Response:
    """One line of plain text; never with `Retry-After`, on which clients sleep (contract 6.4)."""
    return PlainTextResponse(error.detail, error.status)


def frame_of(item: Item) -> wire.Frame:
    """An item as it goes over the wire."""
    return wire.Frame(item.index, item.tags, item.data, item.message)


def query_of(connection: HTTPConnection) -> str:
    """The query string as it came; asking the URL for it takes as long as parsing it."""
    try:
        return connection.scope["query_string"].decode()
    except UnicodeDecodeError as error:
        raise BadParameter("the query string is no percent-encoded UTF-8") from error


def identity_of(connection: HTTPConnection) -> Identity:
    """The caller's group and user; the short header names count before the older long ones."""

    def first(names: tuple[str, ...], default: str) -> str:
        found = next((v for name in names if (v := connection.headers.get(name))), default)
        if len(found) > _MAX_IDENTITY:
            raise BadParameter(f"{names[0]} has at most {_MAX_IDENTITY} characters")
        return found

    return Identity(first(_GROUP_HEADERS, _DEFAULT_GROUP), first(_USER_HEADERS, str(uuid.uuid4())))


def is_rear(connection: HTTPConnection) -> bool:
    """Whether the dead letters are meant."""
    return connection.headers.get(_REAR_HEADER, "").lower() == "true"


def takes_protobuf(connection: HTTPConnection) -> bool:
    """Whether the caller wants protobuf rather than JSON."""
    return wire.PROTOBUF in connection.headers.get("accept", "").lower()


async def body_of(request: Request, limit: int) -> bytes:
    """The body, read no further than the limit; kept, so that it can be asked for again."""
    kept: bytes | None = getattr(request.state, "queue_body", None)
    if kept is not None:
        return kept
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise PayloadTooLarge(f"the data is larger than {limit} bytes")
    except ClientDisconnect as error:
        raise BadParameter("the client went away in the middle of its body") from error
    request.state.queue_body = bytes(body)
    return request.state.queue_body


def header_text(text: str) -> str:
    """A text as a header can carry it."""
    return text.encode("ascii", errors="replace").decode().replace("\r", " ").replace("\n", " ")


def ok() -> Response:
    """What a call without a result answers."""
    return PlainTextResponse("OK")


def json_answer(content: object) -> Response:
    """An answer in JSON."""
    return Response(orjson.dumps(content), media_type="application/json")
