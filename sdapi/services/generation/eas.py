"""The EAS additions: plain values in `alwayson_scripts` beside the scripts (design section 4)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sdapi.errors import BadRequest, near_names
from sdapi.schemas.coercion import to_object


@dataclass(frozen=True, slots=True)
class EASFields:
    """What a request says beyond the webui's fields; None where it is silent."""

    sd_model_checkpoint: str | None = None
    sd_vae: str | None = None
    save_dir: str | None = None
    image_link: str | None = None
    id_task: str | None = None
    uid: str | None = None


EAS_KEYS = tuple(each.name for each in fields(EASFields))


def take_eas_fields(entries: Mapping[str, Any]) -> tuple[EASFields, dict[str, Any]]:
    """Split `alwayson_scripts` into the EAS keys and the scripts.

    Raises `BadRequest` that names the key for a value of the wrong type or an unknown plain key.
    """
    found: dict[str, str] = {}
    scripts: dict[str, Any] = {}
    for key, value in entries.items():
        if key in EAS_KEYS:
            if value is not None and not isinstance(value, str):
                raise BadRequest(f"alwayson_scripts.{key} must be a string, not {_kind(value)}")
            if value is not None:
                found[key] = value
        elif isinstance(value, dict):
            scripts[key] = value
        else:
            raise BadRequest(
                f"alwayson_scripts.{key}: {_kind(value)} is no script; a script is an object with "
                f'"args", and the plain keys are {near_names(key, EAS_KEYS, limit=len(EAS_KEYS))}'
            )
    return EASFields(**found), scripts


def text_field_of(body: object, key: str) -> str | None:
    """An EAS key of a body that may be invalid otherwise; None where it is no text.

    Errors of a body with a `save_dir` have the shape of URL mode.
    """
    if not isinstance(body, dict):
        return None
    try:
        value = to_object(body.get("alwayson_scripts")).get(key)
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _kind(value: object) -> str:
    names: dict[type, str] = {
        type(None): "null",
        bool: "a boolean",
        list: "a list",
        str: "a string",
        dict: "an object",
    }
    return names.get(type(value), "a number")
