"""Units in infotexts, both ways (contract: controlnet-api 10)."""

from math import isfinite
from typing import Any, Final

from sdapi.extensions.controlnet.preprocessors import Values
from sdapi.extensions.controlnet.units.unit_fields import UnitFields

#: what a part is called -> the field
_FIELDS: Final = {
    "Module": "module",
    "Model": "model",
    "Weight": "weight",
    "Resize Mode": "resize_mode",
    "Processor Res": "processor_res",
    "Threshold A": "threshold_a",
    "Threshold B": "threshold_b",
    "Guidance Start": "guidance_start",
    "Guidance End": "guidance_end",
    "Pixel Perfect": "pixel_perfect",
    "Control Mode": "control_mode",
}
_NUMBERS: Final = {
    "weight", "processor_res", "threshold_a", "threshold_b", "guidance_start", "guidance_end",
}  # fmt: skip


def key_of(number: int) -> str:
    """The infotext key of an enabled unit."""
    return f"ControlNet {number}"


def unit_text(unit: UnitFields, values: Values) -> str:
    """A unit as infotexts tell of it: names as they were sent, sliders after defaults.

    Empty where a value would break the list apart.
    """
    in_force = {
        "processor_res": values.resolution,
        "threshold_a": values.threshold_a,
        "threshold_b": values.threshold_b,
    }
    parts = {label: in_force.get(name, getattr(unit, name)) for label, name in _FIELDS.items()}
    if any(sign in str(value) for value in parts.values() for sign in ",:"):
        return ""
    return ", ".join(f"{label}: {value}" for label, value in parts.items())


def read_unit_text(text: str) -> dict[str, Any]:
    """The fields in a unit's text; what is no known part is left out."""
    fields: dict[str, Any] = {}
    for part in text.split(","):
        label, mark, value = part.partition(":")
        name, value = _FIELDS.get(label.strip()), value.strip()
        if not mark or name is None:
            continue
        if name == "pixel_perfect":
            fields[name] = value == "True"
        elif name not in _NUMBERS:
            fields[name] = value
        elif (number := _number(value)) is not None:
            # Hidden sliders tell a half where requests take whole numbers.
            fields[name] = -1 if name == "processor_res" and number % 1 else number
    return fields


def _number(text: str) -> float | int | None:
    """A finite number, whole where it is written so; small ones have exponents."""
    try:
        number = float(text)
        return int(text) if text.lstrip("-").isdecimal() else number if isfinite(number) else None
    except ValueError:
        return None


def with_texts_first(keys: dict[str, Any], texts: dict[str, str]) -> None:
    """Put the units' texts before all other infotext keys, in place."""
    others = dict(keys)
    keys.clear()
    keys.update(texts | others)
