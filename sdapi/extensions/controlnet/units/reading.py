"""The units of a request that take part, with what its infotext tells of them."""

from typing import Any, Final, cast

from sdapi.errors import BadRequest
from sdapi.extensions.controlnet.units.infotext import key_of, read_unit_text
from sdapi.extensions.controlnet.units.unit_fields import UnitFields, fields_given, read_unit
from sdapi.infotext import parse
from sdapi.services.catalog.styles import Styles
from sdapi.services.scripts.script import Preparation

#: where units stand in a request
PLACE: Final = "alwayson_scripts.controlnet.args"
_UNIT_COUNT: Final = "control_net_unit_count"


def enabled_units(given: list[Any], preparation: Preparation) -> list[tuple[str, UnitFields]]:
    """The enabled units with their places; raises `BadRequest` for too many, or a bad one."""
    told = _told_by_infotext(preparation)
    units = [
        (f"{PLACE}.{i}", _read(cast("dict[str, Any]", each), told.get(i, {}), f"{PLACE}.{i}"))
        for i, each in enumerate(given)
        if isinstance(each, dict)
    ]
    enabled = [(place, unit) for place, unit in units if unit.enabled]
    allowed = preparation.options.integer(_UNIT_COUNT)
    if len(enabled) > allowed:
        raise BadRequest(
            f"{PLACE}: {len(enabled)} units are enabled; option {_UNIT_COUNT} allows {allowed}"
        )
    return enabled


def _read(given: dict[str, Any], told: dict[str, Any], place: str) -> UnitFields:
    """A unit; what it says itself, under whatever name, counts before what is told of it."""
    names = fields_given(given)
    return read_unit({k: v for k, v in told.items() if k not in names} | given, place)


def _told_by_infotext(preparation: Preparation) -> dict[int, dict[str, Any]]:
    """Fields that the request's `infotext` has for the units at each place."""
    text = preparation.request.infotext
    if not text:
        return {}
    parsed = parse(text, options=preparation.options, styles=Styles.load())
    return {
        number: read_unit_text(value)
        for number in range(preparation.options.integer(_UNIT_COUNT))
        if isinstance(value := parsed.get(key_of(number)), str)
    }
