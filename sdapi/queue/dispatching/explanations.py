"""What the API says of a call, in terms of the put that stands behind it."""

from dataclasses import replace
from typing import Any, Final

import orjson

from sdapi.queue.config.spec import Program, ServiceSpec
from sdapi.queue.dispatching.inference import Answer
from sdapi.queue.stores.store import Item

#: characters of what was put that the answer repeats
_MAX_ECHO: Final = 60
_KINDS: Final = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def explained(item: Item, spec: ServiceSpec, answer: Answer) -> Answer:
    """An answer of the API that would mislead whoever only put something, with what they did."""
    if spec.container.program is not Program.WEBUI:
        return answer
    if answer.status == 405 and not item.path.strip("/"):
        return _of_no_path(spec)
    if answer.status == 422:
        return _of_no_object(item, answer)
    return answer


def _of_no_path(spec: ServiceSpec) -> Answer:
    """A put without a path is a call of `/`, where the API takes no POST: say where it does."""
    below = f"/api/predict/{spec.name}"
    text = f"the put names no call: put it below {below}, as at {below}/sdapi/v1/txt2img"
    body = {"detail": f"Method Not Allowed: {text}"}
    return Answer(405, orjson.dumps(body), "application/json")


def _of_no_object(item: Item, answer: Answer) -> Answer:
    """The API speaks of headers where it could read no JSON object; a put needs none."""
    problem = _problem(item.data)
    body: Any = _json(answer.body)
    entries = body.get("detail") if isinstance(body, dict) else None
    if problem is None or not isinstance(entries, list):
        return answer
    hint = f"{problem}; {item.path} takes a JSON object, in a put with or without a Content-Type"
    for entry in entries:
        if isinstance(entry, dict) and (entry.get("loc") or [None])[0] == "body":
            entry["ctx"] = {**(entry.get("ctx") or {}), "hint": hint}
    return replace(answer, body=orjson.dumps(body))


def _problem(data: bytes) -> str | None:
    """Why what was put is no JSON object; None where it is one."""
    if not data:
        return "nothing was put"
    try:
        found = orjson.loads(data)
    except ValueError:
        return f"what was put is no JSON: {_shown(data)}"
    if isinstance(found, dict):
        return None
    return f"what was put is {_KINDS.get(type(found), 'a number')} in JSON: {_shown(data)}"


def _shown(data: bytes) -> str:
    text = data.decode(errors="replace")
    return repr(text) if len(text) <= _MAX_ECHO else f"{text[:_MAX_ECHO]!r}…"


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        return None
