"""What a request that does not fit its schema is told.

Clients of the webui know pydantic 1's texts; this is the one table from pydantic 2's error types
to them.
"""

import ast
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from fastapi.exceptions import RequestValidationError

#: pydantic 2 type -> pydantic 1 message and type. `{name}` in a message is an entry of the context.
_TABLE: Final[Mapping[str, tuple[str, str]]] = {
    "missing": ("field required", "value_error.missing"),
    "extra_forbidden": ("extra fields not permitted", "value_error.extra"),
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_parsing_size", "int_from_float"),
        ("value is not a valid integer", "type_error.integer"),
    ),
    **dict.fromkeys(
        ("float_type", "float_parsing"), ("value is not a valid float", "type_error.float")
    ),
    **dict.fromkeys(
        ("bool_type", "bool_parsing"),
        ("value could not be parsed to a boolean", "type_error.bool"),
    ),
    "string_type": ("str type expected", "type_error.str"),
    "list_type": ("value is not a valid list", "type_error.list"),
    "tuple_type": ("value is not a valid tuple", "type_error.tuple"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"),
        ("value is not a valid dict", "type_error.dict"),
    ),
    "greater_than": (
        "ensure this value is greater than {limit_value}",
        "value_error.number.not_gt",
    ),
    "greater_than_equal": (
        "ensure this value is greater than or equal to {limit_value}",
        "value_error.number.not_ge",
    ),
    "less_than": ("ensure this value is less than {limit_value}", "value_error.number.not_lt"),
    "less_than_equal": (
        "ensure this value is less than or equal to {limit_value}",
        "value_error.number.not_le",
    ),
    "finite_number": (
        "ensure this value is a finite number",
        "value_error.number.not_finite_number",
    ),
    "literal_error": ("unexpected value; permitted: {permitted}", "value_error.const"),
    "enum": ("unexpected value; permitted: {permitted}", "value_error.const"),
    "string_too_short": (
        "ensure this value has at least {limit_value} characters",
        "value_error.any_str.min_length",
    ),
    "string_too_long": (
        "ensure this value has at most {limit_value} characters",
        "value_error.any_str.max_length",
    ),
    "too_short": (
        "ensure this value has at least {limit_value} items",
        "value_error.list.min_items",
    ),
    "too_long": (
        "ensure this value has at most {limit_value} items",
        "value_error.list.max_items",
    ),
    "string_pattern_mismatch": (
        'string does not match regex "{pattern}"',
        "value_error.str.regex",
    ),
    "json_invalid": (
        "{msg}: line {lineno} column {colno} (char {pos})",
        "value_error.jsondecode",
    ),
}
_NULL: Final = ("none is not an allowed value", "type_error.none.not_allowed")
_LIMITS: Final = ("gt", "ge", "lt", "le", "min_length", "max_length")
#: what is said of a body that FastAPI did not read as JSON, beside the webui's text
_UNREAD: Final = {"hint": "send a JSON body with the header Content-Type: application/json"}
#: characters of what a caller sent that the answer repeats
_MAX_ECHO: Final = 1000


def validation_body(error: RequestValidationError) -> dict[str, Any]:
    """The body of the 422 that answers a request which does not fit its schema."""
    entries = cast("Sequence[Mapping[str, Any]]", error.errors())
    return {"detail": [_entry(entry, error.body) for entry in entries]}


def _entry(entry: Mapping[str, Any], body: object) -> dict[str, Any]:
    kind = str(entry["type"])
    if entry["loc"] == ("body",) and entry.get("input", "") is None:
        kind = "missing"  # a body of `null` is as good as none
    if entry.get("input", "") is None and kind != "missing":
        message, old_kind = _NULL
        context = {}
    else:
        message, old_kind = _TABLE.get(kind, (_own_message(entry), kind))
        context = _context(kind, entry, body)
    text = _shown(_fill(message, context))
    if isinstance(body, bytes) and entry["loc"][:1] == ("body",):
        context = context | _UNREAD
    result = {"loc": [_shown(part) for part in entry["loc"]], "msg": text, "type": old_kind}
    return {**result, "ctx": context} if context else result


def _own_message(entry: Mapping[str, Any]) -> str:
    """The text of an error that the table does not know, such as a validator's own."""
    return str(entry["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _fill(message: str, context: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        found = context.get(match[1], match[0])
        return ", ".join(map(repr, found)) if isinstance(found, list) else str(found)

    return re.sub(r"\{(\w+)\}", value, message) if context else message


def _context(kind: str, entry: Mapping[str, Any], body: object) -> dict[str, Any]:
    given = cast("Mapping[str, Any]", entry.get("ctx") or {})
    if kind == "json_invalid":
        return _json_context(str(given["error"]), int(entry["loc"][-1]), body)
    if kind in ("literal_error", "enum"):
        return {
            "given": _shown(entry.get("input")),
            "permitted": _permitted(str(given["expected"])),
        }
    if kind == "string_pattern_mismatch":
        return {"pattern": given["pattern"]}
    limit = next((given[name] for name in _LIMITS if name in given), None)
    return {} if limit is None else {"limit_value": _whole_if_it_is(limit)}


def _json_context(message: str, position: int, body: object) -> dict[str, Any]:
    """Where a text stops being JSON, as Python's decoder tells it."""
    text = body if isinstance(body, str) else ""
    return {
        "msg": message,
        "doc": _shown(text),
        "pos": position,
        "lineno": text.count("\n", 0, position) + 1,
        "colno": position - text.rfind("\n", 0, position),
    }


def _shown(value: Any) -> Any:
    """A caller's value as an answer can hold it: not long, no NaN, no half of a surrogate pair."""
    if isinstance(value, (bool, int, type(None))):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text[:_MAX_ECHO].encode("utf-8", "replace").decode()


def _permitted(expected: str) -> list[Any]:
    """The values in pydantic 2's sentence: `0, 1 or 2`, `'a' or 'b'`."""
    values = re.findall(r"'(?:[^'\\]|\\.)*'|[^\s,]+", expected)
    return [_literal(value) for value in values if value != "or"]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _whole_if_it_is(limit: Any) -> Any:
    """A bound as it was declared: pydantic 2 makes floats of a float field's integer bounds."""
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit
