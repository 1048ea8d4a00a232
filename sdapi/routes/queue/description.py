"""The queue's calls for the API's description: they are answered before FastAPI sees them."""

from typing import Any, Final

from sdapi.queue.protocol.attributes import PRIORITY_HEADER
from sdapi.queue.protocol.wire import PROTOBUF
from sdapi.routes.queue.calls import DELETED_HEADER, INDEX_HEADER, REQUEST_ID_HEADER

TAG: Final = {
    "name": "queue",
    "description": "The EAS queue: put requests, read what came of them (`docs/queue.md`)",
}

_TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}
_ANY_BODY: Final = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_ERRORS: Final = {
    "400": "A parameter that cannot be meant so",
    "401": "No token, or a wrong one",
    "404": "There is no such service",
    "413": "The data is larger than the service takes",
    "429": "The queue is full; never with Retry-After",
    "503": "The server is stopping, or the queue's store gives no answer",
}


def _parameter(
    name: str, kind: str, meaning: str, default: Any = None, place: str = "query"
) -> dict[str, Any]:
    known = {} if default is None else {"default": default}
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": meaning,
        "schema": {"type": kind, **known},
    }


_SERVICE: Final = _parameter("service", "string", "A service, such as sd_async", place="path")
_PATH: Final = _parameter(
    "path", "string", "Where the call goes, such as sdapi/v1/txt2img", place="path"
)
_REAR: Final = _parameter(
    *("X-EAS-QueueService-Access-Rear", "boolean", "Mean the dead letters of that queue"),
    place="header",
)
_USER: Final = _parameter(
    *("X-EAS-QueueService-Uid", "string", "Who consumes; its items come back to it"), place="header"
)
_GROUP: Final = _parameter(
    *("X-EAS-QueueService-Gid", "string", "Its group, which gets each item once"),
    default="eas",
    place="header",
)
_INDEX: Final = _parameter("_index_", "integer", "0: from the head; n: from there; -1: newest", 0)
_INDEXES: Final = _parameter("_indexes_", "string", "The items meant, as in 1,2")
_PUT: Final = (
    _parameter("_priority_", "integer", "Higher ones are worked on first", 0),
    _parameter(PRIORITY_HEADER, "integer", "The same; the query counts before it", place="header"),
    _parameter("requestId", "string", "The request's own id; a repeated put is stored once"),
    _parameter("_eos_", "boolean", "Not a put: the end of a stream", False),
    _parameter("_force_", "boolean", "With `_eos_`: drop what nobody has been handed", False),
)
_GET: Final = (
    _INDEX,
    _parameter("_length_", "integer", "Most items to return", 1),
    _parameter("_timeout_", "string", "Longest wait, as in 5s or 1m30s; at most an hour", "0s"),
    _parameter("_raw_", "boolean", "One item's bare bytes; false: a list with tags", True),
    _parameter("_auto_delete_", "boolean", "Delete what was returned", True),
    _parameter("requestId", "string", "Only the item of this request; so with any other tag"),
    _parameter("_attrs_", "boolean", "The queue's attributes instead", False),
    _parameter("_count_", "boolean", "How many items match instead", False),
    _parameter("_search_", "boolean", "The place in the line of `_index_` instead", False),
    _parameter("_watch_", "boolean", "Items as they come, over a WebSocket or as a stream", False),
    _parameter("_window_", "integer", "Of a watch: items handed out and not committed", 1),
    _parameter("_index_only_", "boolean", "Of a watch: index and tags without data", False),
    _parameter("_auto_commit_", "boolean", "Of a watch: commit what is sent", False),
)
_COMMIT: Final = (
    _INDEXES,
    _parameter("_negative_", "boolean", "Give them back; the form body has `_code_`", False),
)
_DELETE: Final = (
    _INDEXES,
    _INDEX,
    _parameter("_trunc_", "boolean", "Delete everything below `_index_` instead", False),
)


def _operation(
    summary: str,
    description: str,
    parameters: tuple[dict[str, Any], ...],
    answers: dict[str, dict[str, Any]],
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    errors = {code: {"description": text, "content": _TEXT} for code, text in _ERRORS.items()}
    return {
        "tags": [TAG["name"]],
        "summary": summary,
        "description": description,
        "parameters": list(parameters),
        **({} if body is None else {"requestBody": {"content": body}}),
        "responses": answers | errors,
    }


def _header(meaning: str) -> dict[str, Any]:
    return {"description": meaning, "schema": {"type": "string"}}


def _put(summary: str, path: tuple[dict[str, Any], ...], description: str) -> dict[str, Any]:
    answer = {
        "description": "The item's index in decimal digits; of a synchronous service its answer",
        "headers": {REQUEST_ID_HEADER: _header("The request's id")},
        "content": _TEXT,
    }
    parameters = (_SERVICE, *path, *_PUT, _USER, _GROUP, _REAR)
    return _operation(summary, description, parameters, {"200": answer}, _ANY_BODY)


def _queue(name: str) -> dict[str, Any]:
    """Reading, committing and deleting at one of a service's queues."""
    found = {
        "description": "The item, or a list of `{index, tags, data, …}`, or what was asked instead",
        "headers": {
            REQUEST_ID_HEADER: _header("Of one bare item: its request's id"),
            INDEX_HEADER: _header("Of one bare item: its index"),
        },
        "content": {
            **_ANY_BODY,
            "application/json": {"schema": {}},
            PROTOBUF: {"schema": {"type": "string", "format": "binary"}},
        },
    }
    none = {"description": "Nothing matched in time"}
    done = {"200": {"description": "OK", "content": _TEXT}}
    who = (_USER, _GROUP, _REAR)
    return {
        "get": _operation(
            f"Read {name}",
            f"Read items of {name}, or watch it, count, or ask for its attributes. "
            "A `GET` deletes what it returns unless `_auto_delete_` is false.",
            (_SERVICE, *_GET, *who),
            {"200": found, "204": none},
        ),
        "put": _operation(
            f"Commit items of {name}",
            "End items that a watch has handed out, or give them back.",
            (_SERVICE, *_COMMIT, *who),
            done,
            {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}},
        ),
        "delete": _operation(
            f"Delete items of {name}",
            "Delete items, handed out or not, or all below an index; OK also where none were.",
            (_SERVICE, *_DELETE, *who),
            {"200": done["200"] | {"headers": {DELETED_HEADER: _header("How many there were")}}},
        ),
    }


_TAGS_TOLD: Final = (
    "Any other query parameter whose name has no underscore at its beginning is a tag: a parameter "
    "of the call, and of its result."
)
_DISCOVERY: Final = {
    "get": {
        "tags": [TAG["name"]],
        "summary": "Discover",
        "description": "Where a service answers: at the address that was asked. No credentials.",
        "parameters": [_SERVICE],
        "responses": {
            "200": {
                "description": "`{endpoints: {items: [{ip, port, weight}]}}`",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            "404": {"description": _ERRORS["404"], "content": _TEXT},
        },
    }
}

PATHS: Final[dict[str, Any]] = {
    "/api/predict/{service}": {
        "post": _put(
            "Put a request for path /",
            (),
            f"Put a request that goes to the service's path `/`, as portraits do. {_TAGS_TOLD}",
        ),
        **_queue("the input queue"),
    },
    "/api/predict/{service}/{path}": {
        "post": _put(
            "Put a request",
            (_PATH,),
            "Put a request into the input queue: any POST route of this server. What comes of it "
            f"appears in the sink. {_TAGS_TOLD} A synchronous service answers at once, any verb.",
        )
    },
    "/api/predict/{service}/sink": _queue("the sink"),
    "/api/v1/servicediscovery/upstreams/{service}": _DISCOVERY,
    "/exported/apis/eas.alibaba-inc.k8s.io/v1/upstreams/{service}": _DISCOVERY,
}
