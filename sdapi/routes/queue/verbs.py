"""What POST, PUT, DELETE and GET of a queue do (contract 6)."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

from starlette.responses import PlainTextResponse, Response

from sdapi.errors import ShuttingDown
from sdapi.queue.protocol import wire
from sdapi.queue.protocol.attributes import PRIORITY_HEADER
from sdapi.queue.protocol.parameters import BadParameter, Parameters
from sdapi.queue.service import Address
from sdapi.queue.stores.store import REQUEST_ID
from sdapi.routes.queue.calls import (
    DELETED_HEADER,
    REQUEST_ID_HEADER,
    Call,
    header_text,
    json_answer,
    ok,
)
from sdapi.routes.queue.reading import read_items
from sdapi.routes.queue.watching import watch_over_http

log = logging.getLogger(__name__)

#: what a header can carry, since the answer's does; none is a new one
_REQUEST_ID = re.compile(r"([!-~]([ -~]{0,254}[!-~])?)?")
_REQUEST_ID_RULE = (
    "requestId is of at most 256 printable ASCII characters, and neither begins nor ends in a space"
)
_PRIORITY_HEADER = PRIORITY_HEADER.lower()
#: of a negative commit (contract 10.4)
_CODE = re.compile(r"([A-Z][a-z]*)+(.[A-Z][a-z]*)?|[0-9]+")
_MAX_CODE = 20
_MAX_FORM_BYTES = 64 << 10


async def post(call: Call, address: Address, parameters: Parameters) -> Response:
    """Put an item; with `_eos_` and `_force_` drop what nobody has been handed."""
    if parameters.flag("_eos_"):
        if parameters.flag("_force_"):
            await call.service.store.drop_undelivered(address.queue)
        return ok()
    if call.served.is_stopping():
        raise ShuttingDown("the server is shutting down")
    priority = parameters.priority(call.headers.get(_PRIORITY_HEADER))
    if not _REQUEST_ID.fullmatch(parameters.tags.get(REQUEST_ID, "")):
        raise BadParameter(_REQUEST_ID_RULE)
    body = await call.body(address.spec.limits(address.queue).max_payload_bytes)
    index, request_id = await call.service.put(
        address,
        body,
        parameters.tags,
        priority=priority,
        content_type=call.headers.get("content-type", ""),
    )
    return PlainTextResponse(str(index), headers={REQUEST_ID_HEADER: header_text(request_id)})


async def put(call: Call, address: Address, parameters: Parameters) -> Response:
    """Commit items, or give them back (`_negative_`)."""
    indexes, identity = parameters.indexes, call.identity()
    if not parameters.flag("_negative_"):
        await call.service.commit(address.queue, identity, indexes)
        return ok()
    form = dict(parse_qsl((await call.body(_MAX_FORM_BYTES)).decode(errors="replace")))
    code = form.get("_code_", "")
    if not _CODE.fullmatch(code) or len(code) > _MAX_CODE:
        raise BadParameter(f"_code_ is a word such as Shutdown, or digits, not {code[:40]!r}")
    log.info("items %s came back: %s %s", indexes, code, form.get("_reason_", "")[:200])
    await call.service.reject(address.queue, identity, indexes, code)
    return ok()


async def delete(call: Call, address: Address, parameters: Parameters) -> Response:
    """Delete items, or all below an index (`_trunc_`); a header tells how many there were.

    None is no mistake: clients repeat a delete whose answer was lost.
    """
    if parameters.flag("_trunc_"):
        if parameters.index < 0:
            raise BadParameter("_index_ of a truncation is 0 or more")
        deleted = await call.service.store.truncate(address.queue, parameters.index)
    else:
        deleted = await call.service.store.delete(address.queue, parameters.indexes)
    return ok({DELETED_HEADER: str(deleted)})


async def get(call: Call, address: Address, parameters: Parameters) -> Response:
    """Read, watch, count, search, or ask for the attributes."""
    if parameters.flag("_watch_"):
        return watch_over_http(call, address, parameters)
    if parameters.flag("_attrs_"):
        return await _attributes(call, address)
    if parameters.flag("_search_"):
        return await _search(call, address, parameters)
    if parameters.flag("_count_"):
        given = "_priority_" in parameters.reserved
        priority = parameters.priority() if given else None
        count = await call.service.store.count(address.queue, parameters.tags, priority)
        return PlainTextResponse(str(count))
    return await read_items(call, address.queue, parameters)


async def _attributes(call: Call, address: Address) -> Response:
    attributes = await call.service.attributes(address)
    if call.takes_protobuf():
        return Response(wire.encode_attributes(attributes), media_type=wire.PROTOBUF)
    return json_answer(attributes)


async def _search(call: Call, address: Address, parameters: Parameters) -> Response:
    place = await call.service.search(address.queue, call.identity(), parameters.index)
    return json_answer(
        {
            "ConsumerId": place.consumer,
            "IsPending": place.is_pending,
            "WaitCount": place.waiting_before,
        }
    )


Verb = Callable[[Call, Address, Parameters], Awaitable[Response]]
VERBS: Mapping[str, Verb] = {"GET": get, "POST": post, "PUT": put, "DELETE": delete}
