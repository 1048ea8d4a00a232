"""`configure` of a creation: every field of every surface, with its range and defaults.

Numbers out of range are clamped with a warning, as the samples send extremes; a value of a wrong
type that cannot be converted is an error.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Final

STEPS: Final = (1, 150)
SHARE: Final = (0.0, 1.0)


class ConfigureError(ValueError):
    """A field has a value of the wrong kind; the text names it."""


class Surface(IntEnum):
    """Which column of defaults applies."""

    QUEUE = 0
    SD15 = 1
    SDXL = 2


@dataclass(frozen=True, slots=True)
class Spec:
    """One field: what it may be, and its default on each surface; `ABSENT` where it is none."""

    kind: type
    defaults: tuple[Any, Any, Any]
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    #: what an unknown choice becomes; an error where empty
    otherwise: str = ""


ABSENT: Final = object()
_UNSET: Final = (ABSENT, ABSENT)


def _flag(*defaults: Any) -> Spec:
    return Spec(bool, _three(defaults))


def _share(*defaults: Any, low: float = 0.0) -> Spec:
    return Spec(float, _three(defaults), (low, SHARE[1]))


def _steps(*defaults: Any) -> Spec:
    return Spec(int, _three(defaults), STEPS)


def _text(*defaults: Any, choices: tuple[str, ...] = (), otherwise: str = "") -> Spec:
    return Spec(str, _three(defaults), None, choices, otherwise)


def _three(defaults: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """One value stands for all surfaces."""
    return (defaults * 3)[0:3] if len(defaults) == 1 else (defaults[0], defaults[1], defaults[2])


SPECS: Final[Mapping[str, Spec]] = {
    "lora_weights": _share(0.90, low=0.5),
    "first_diffusion_steps": _steps(50),
    "first_denoising_strength": _share(0.45),
    "second_diffusion_steps": _steps(20, 30, 30),
    "second_denoising_strength": _share(0.30),
    "more_like_me_before": _share(0.50, *_UNSET),
    "more_like_me": _share(0.50, 0.50, 0.60),
    "mask_region": _text("edge", *_UNSET, choices=("edge", "face")),
    "crop_face_preprocess": _flag(True),
    "apply_face_fusion_before": _flag(True),
    "apply_face_fusion_after": _flag(True),
    "color_shift_middle": _flag(True),
    "color_shift_last": _flag(True),
    "background_restore": _flag(False),
    "skin_retouching_bool": _flag(True, False, False),
    "photo_enhancement_bool": _flag(True),
    "photo_enhancement_method": _text("photo_fix", choices=("photo_fix", "super_resolution")),
    "makeup_transfer": _flag(False),
    "makeup_transfer_ratio": _share(0.5),
    "face_shape_match": _flag(False, False, ABSENT),
    "ipa_control": _flag(False),
    "ipa_control_only": _flag(False),
    "ipa_image_path": _text(""),
    "ipa_weight": _share(0.5),
    "style_name": _text(
        "Realistic", "Realistic", ABSENT, choices=("Realistic", "Anime"), otherwise="Realistic"
    ),
    "lcm_accelerate": _flag(False),
    "sharp_ratio": _share(0.15),
    "t2i_prompt": _text(""),
    "scene_id": _text(ABSENT, ABSENT, ""),
    "sex": _text("secret", *_UNSET),
}


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """How a portrait is made; see the API's documents for what each field does."""

    lora_weights: float
    first_diffusion_steps: int
    first_denoising_strength: float
    second_diffusion_steps: int
    second_denoising_strength: float
    #: the queue's own; elsewhere the first fusion takes `more_like_me`
    more_like_me_before: float
    more_like_me: float
    mask_region: str
    crop_face_preprocess: bool
    apply_face_fusion_before: bool
    apply_face_fusion_after: bool
    color_shift_middle: bool
    color_shift_last: bool
    background_restore: bool
    skin_retouching_bool: bool
    photo_enhancement_bool: bool
    photo_enhancement_method: str
    makeup_transfer: bool
    makeup_transfer_ratio: float
    face_shape_match: bool
    ipa_control: bool
    ipa_control_only: bool
    ipa_image_path: str
    ipa_weight: float
    style_name: str
    lcm_accelerate: bool
    sharp_ratio: float
    t2i_prompt: str
    scene_id: str
    sex: str
    #: names of the fields that the caller sent
    given: frozenset[str] = frozenset()


#: what a field is on a surface that does not have it
_WITHOUT: Final = {
    "mask_region": "edge",
    "face_shape_match": False,
    "style_name": "Realistic",
    "scene_id": "",
    "sex": "secret",
}


def parse_configure(raw: Any, surface: Surface) -> tuple[CreateOptions, tuple[str, ...]]:
    """The options, and warnings about values that were changed; raises ConfigureError."""
    if raw is not None and not isinstance(raw, dict):
        raise ConfigureError("configure is no object")
    sent: dict[str, Any] = raw or {}
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for name, spec in SPECS.items():
        default = spec.defaults[surface]
        if default is ABSENT:
            continue
        value = sent.get(name)
        values[name] = default if value is None else _checked(name, value, spec, warnings)
    for each in fields(CreateOptions):
        if each.name in SPECS and each.name not in values:
            like_me = values["more_like_me"]
            values[each.name] = _WITHOUT.get(each.name, like_me)
    given = frozenset(name for name in values if sent.get(name) is not None)
    return CreateOptions(**values, given=given), tuple(warnings)


def _checked(name: str, value: Any, spec: Spec, warnings: list[str]) -> Any:
    converted: Any = _CONVERTERS[spec.kind](name, value)
    if spec.choices and converted not in spec.choices:
        if not spec.otherwise:
            raise ConfigureError(f"{name}: {converted[:40]!r} is none of {spec.choices}")
        warnings.append(f"{name}: {converted[:40]!r} is unknown; {spec.otherwise} is used")
        return spec.otherwise
    if spec.limits is not None:
        low, high = (spec.kind(limit) for limit in spec.limits)
        clamped = min(max(converted, low), high)
        if clamped != converted:
            warnings.append(f"{name}: {converted} is not in {low} to {high}; {clamped} is used")
        return clamped
    return converted


def to_bool(name: str, value: Any) -> bool:
    """A truth value: also 0 and 1, and the words in any case."""
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise ConfigureError(f"{name} is neither true nor false")


def to_float(name: str, value: Any) -> float:
    """A finite number, or a text that spells one."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigureError(f"{name} is no number")
    return number


def to_int(name: str, value: Any) -> int:
    """A whole number, in any spelling of it."""
    number = to_float(name, value)
    if number != int(number):
        raise ConfigureError(f"{name} is no whole number")
    return int(number)


def to_text(name: str, value: Any) -> str:
    """The value as it is; raises `ConfigureError` for anything but a text."""
    if not isinstance(value, str):
        raise ConfigureError(f"{name} is no text")
    return value


_CONVERTERS: Final = {bool: to_bool, float: to_float, int: to_int, str: to_text}
