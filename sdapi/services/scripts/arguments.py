"""The arguments of scripts: models whose field order is the positional order.

A client sends a list, as the webui's do, or an object by field name; `script-info` is made from the
same model. Contract: webui-api 6.3, webui-scripts 1.2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo

from sdapi.errors import BadRequest, near_names

if TYPE_CHECKING:
    from sdapi.services.container import Services

Choices = Sequence[str] | Callable[["Services"], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Arg:
    """How an argument is shown: `Annotated[int, Arg("Loops", 1, 32, 1)] = 4`.

    Bounds are what a slider would offer, and not checked: the reference takes what is beyond, too.
    A model that needs a bound states it with pydantic's `Field`.
    """

    label: str
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    #: fixed names, or what this server has when it is asked
    choices: Choices | None = None
    #: what `script-info` shows where that is not the default
    shown: Any = None


class NoArgs(BaseModel):
    """A script without arguments."""


def read_arguments(model: type[BaseModel], given: object, where: str) -> BaseModel:
    """The arguments a client sent: a list, an object, or nothing at all.

    What a list leaves out, or holds null for where null means nothing, has its default; what it
    holds beyond the last argument is dropped. Raises `BadRequest` that names the place.
    """
    if given is None:
        given = []
    if issubclass(model, RootModel):
        values: object = given
    elif isinstance(given, dict):
        values = _by_name(model, cast("dict[str, Any]", given), where)
    elif isinstance(given, list):
        values = _by_position(model, cast("list[Any]", given))
    else:
        raise BadRequest(f"{where}: arguments are a list or an object, not {given!r:.100}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join((where, *(str(part) for part in first["loc"])))
        raise BadRequest(f"{place}: {first['msg']}") from error


def _by_name(model: type[BaseModel], given: dict[str, Any], where: str) -> dict[str, Any]:
    known = model.model_fields
    for key in given:
        if key not in known:
            raise BadRequest(
                f"{where}: there is no argument {key!r}; near {near_names(key, known)}"
            )
    return given


def _by_position(model: type[BaseModel], given: list[Any]) -> dict[str, Any]:
    pairs = zip(model.model_fields.items(), given, strict=False)
    return {
        name: value for (name, field), value in pairs if value is not None or _takes_null(field)
    }


def _takes_null(field: FieldInfo) -> bool:
    """Whether null means something for an argument, or must be refused by its model."""
    is_optional = type(None) in get_args(field.annotation)
    return is_optional or field.default is None or field.is_required()


def describe_arguments(model: type[BaseModel], services: "Services") -> list[dict[str, Any]]:
    """The arguments as `script-info` lists them."""
    return [_describe(name, field, services) for name, field in model.model_fields.items()]


def _describe(name: str, field: FieldInfo, services: "Services") -> dict[str, Any]:
    arg = next((each for each in field.metadata if isinstance(each, Arg)), Arg(name))
    choices = arg.choices(services) if callable(arg.choices) else arg.choices
    default = None if field.is_required() else field.get_default(call_default_factory=False)
    if default is None and field.default_factory is not None:
        default = cast("Callable[[], Any]", field.default_factory)()
    return {
        "label": arg.label,
        "value": default if arg.shown is None else arg.shown,
        "minimum": arg.minimum,
        "maximum": arg.maximum,
        "step": arg.step,
        "choices": None if choices is None else list(choices),
    }
