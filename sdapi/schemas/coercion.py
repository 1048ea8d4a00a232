"""Field types that accept what the webui's clients send.

The reference validates with pydantic 1, which reads `"20"` and `20.9` as the integer 20, 5 as the
text "5" and "yes" as true. pydantic 2 does not, so each type here converts first. Failures are
pydantic 2's own error types; `sdapi.schemas.validation` gives them the texts clients know.
"""

from typing import Annotated, Any, Final, Literal, cast

from pydantic import BeforeValidator, PlainSerializer
from pydantic_core import PydanticKnownError

_TRUE: Final = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE: Final = frozenset({"0", "off", "f", "false", "n", "no"})


def to_int(value: Any) -> int:
    """An integer from a number or a numeric text; a fraction is cut off."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise PydanticKnownError("int_type") from error


def to_float(value: Any) -> float:
    """A number from a number or a numeric text."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise PydanticKnownError("float_type") from error


def to_flag(value: Any) -> bool:
    """Yes or no, from either, 1 or 0, or a word for one."""
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise PydanticKnownError("bool_type")


def to_text(value: Any) -> str:
    """A text from a text or a number."""
    if isinstance(value, str):
        # JSON can spell half of a surrogate pair, which no file and no answer can hold
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, (int, float)):
        return str(value)
    raise PydanticKnownError("string_type")


def to_object(value: Any) -> dict[str, Any]:
    """An object; also a list of pairs, of which the empty list is what clients send."""
    try:
        pairs: dict[Any, Any] = dict(value)
    except (TypeError, ValueError) as error:
        raise PydanticKnownError("dict_type") from error
    return {str(key): item for key, item in pairs.items()}


def _zero_or_one(value: Any) -> Any:
    return (
        int(cast("int", value)) if isinstance(value, (bool, float)) and value in (0, 1) else value
    )


def _unchanged(value: Any) -> Any:
    return value


#: numeric texts too; fractions are cut off
Int = Annotated[int, BeforeValidator(to_int)]
#: numeric texts too
Float = Annotated[float, BeforeValidator(to_float)]
#: likewise; a default that is an integer is echoed as one, where pydantic 2 would write 0.0
EchoedFloat = Annotated[Float, PlainSerializer(_unchanged, return_type=Any)]
#: also 0, 1, "yes", "off" and the like
Bool = Annotated[bool, BeforeValidator(to_flag)]
#: numbers too
Str = Annotated[str, BeforeValidator(to_text)]
#: an empty list too
Object = Annotated[dict[str, Any], BeforeValidator(to_object)]
#: 0 or 1, nothing else
ZeroOrOne = Annotated[Literal[0, 1], BeforeValidator(_zero_or_one)]
