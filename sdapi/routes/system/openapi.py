"""The API's description, completed by what FastAPI does not know of."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

_UNREADABLE: Final = "a body that no JSON reader takes (`unreadable_body`)"
_PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}


def tell_unreadable_bodies(description: dict[str, Any]) -> None:
    """Add the 400 that every route with a JSON body may answer."""
    for operation in _operations(description):
        if "application/json" not in operation.get("requestBody", {}).get("content", {}):
            continue
        answers = operation["responses"]
        known = answers.get("400")
        text = f"{known['description']}, or {_UNREADABLE}" if known else _UNREADABLE.capitalize()
        content = {"application/json": {"schema": _PROBLEM}}
        answers["400"] = {"content": content, **(known or {}), "description": text}
        operation["responses"] = dict(sorted(answers.items()))


def add_paths(description: dict[str, Any], more: Iterable[dict[str, Any]]) -> None:
    """Add operations, by path and verb, that other layers answer."""
    for paths in more:
        for path, operations in paths.items():
            description["paths"].setdefault(path, {}).update(operations)


def _operations(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in description["paths"].values():
        yield from operations.values()
