"""The arguments of the always-on script "Soft Inpainting" (contract: webui-scripts 12)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from sdapi.engine.jobs.init_images import SoftInpainting
from sdapi.errors import BadRequest
from sdapi.services.scripts.registry import CalledScripts

NAME: Final = "soft inpainting"


@dataclass(frozen=True, slots=True)
class _Argument:
    name: str
    least: float
    most: float


_LARGEST: Final = 100
#: those after `enabled`; the limits keep the arithmetic finite
_ARGUMENTS: Final = (
    _Argument("schedule_bias", 0, _LARGEST),
    _Argument("preservation_strength", 0, _LARGEST),
    _Argument("transition_contrast_boost", 1, _LARGEST),
    _Argument("mask_influence", 0, 1),
    _Argument("difference_threshold", 0, _LARGEST),
    _Argument("difference_contrast", 0, _LARGEST),
)


@dataclass(frozen=True, slots=True)
class SoftInpaintingArgs:
    """What a request asks of soft inpainting, numbers as they were sent."""

    values: tuple[float, ...]

    @property
    def settings(self) -> SoftInpainting:
        return SoftInpainting(*(float(value) for value in self.values))

    @property
    def keys(self) -> dict[str, Any]:
        """Its infotext keys: all of them, whatever their values."""
        names = [argument.name.replace("_", " ") for argument in _ARGUMENTS]
        values = zip(names, self.values, strict=True)
        return {"Soft inpainting enabled": True} | {
            f"Soft inpainting {name}": value for name, value in values
        }


def soft_inpainting(called: CalledScripts) -> SoftInpaintingArgs | None:
    """What a request asks of the script; None where it is switched off.

    Raises `BadRequest` that names an unusable argument.
    """
    scripts = (each for each in called.always_on if each.script.name.lower() == NAME)
    found = next(scripts, None)
    arguments: dict[str, object] = {} if found is None else found.args.model_dump()
    if not arguments.get("enabled"):
        return None
    return SoftInpaintingArgs(tuple(_number(arguments, argument) for argument in _ARGUMENTS))


def _number(arguments: Mapping[str, object], argument: _Argument) -> float:
    value = arguments[argument.name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not argument.least <= cast("float", value) <= argument.most:
        raise BadRequest(
            f"Soft Inpainting: {argument.name} is {value!r}; it must be a number from "
            f"{argument.least:g} to {argument.most:g}"
        )
    return cast("float", value)
