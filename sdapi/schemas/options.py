"""The options as a model, for the API's description; answers are plain objects."""

from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from sdapi.options import OptionSpec, option_specs


@cache
def options_model() -> type[BaseModel]:
    """A model with every option, its type, default and description."""
    fields: dict[str, Any] = {spec.key: _field(spec) for spec in option_specs().values()}
    return create_model("Options", __config__=ConfigDict(protected_namespaces=()), **fields)


def _field(spec: OptionSpec) -> tuple[Any, Any]:
    kinds: dict[str, Any] = {
        "text": str,
        "integer": float if spec.default else int,
        "number": float,
        "flag": bool,
        "list": list[Any],
    }
    kind = kinds[spec.type]
    description = spec.description or None
    return (kind if spec.default is not None else kind | None), Field(
        spec.default, description=description
    )
