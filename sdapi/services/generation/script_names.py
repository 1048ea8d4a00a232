"""Which scripts exist, and which of them can already act (contract: webui-api 6.3)."""

from collections.abc import Mapping
from typing import Any

from sdapi.errors import BadRequest, NotBuilt

_SELECTABLE = ("prompt matrix", "prompts from file or textbox", "x/y/z plot")
_SELECTABLE_IMG2IMG = (
    "img2img alternative test",
    "loopback",
    "outpainting mk2",
    "poor man's outpainting",
    "sd upscale",
)
#: Accepted, and without effect in the API.
_INERT = ("comments", "refiner", "sampler", "seed", "extra options")
_TO_COME = ("controlnet", "hypertile", "soft inpainting")


class UnknownScript(BadRequest):
    code = "script_not_found"


def check_scripts(kind: str, script_name: str | None, alwayson: Mapping[str, Any]) -> None:
    """Refuse names that are no script (422), and scripts that would act but are to come (501)."""
    selectable = _SELECTABLE + (_SELECTABLE_IMG2IMG if kind == "img2img" else ())
    if script_name:
        if script_name.lower() not in selectable:
            raise UnknownScript(f"Script '{script_name}' not found")
        raise NotBuilt(f"script_name: the script {script_name!r} is not available yet")
    for name, entry in alwayson.items():
        known = name.lower()
        if known in selectable:
            raise UnknownScript("Cannot have a selectable script in the always on scripts params")
        if known in _TO_COME and _acts(known, entry.get("args")):
            raise NotBuilt(f"alwayson_scripts.{name}: this script is not available yet")
        if known not in (*_INERT, *_TO_COME):
            raise UnknownScript(f"Script '{name}' not found")


def _acts(name: str, args: object) -> bool:
    if not isinstance(args, list):
        return False
    if name == "controlnet":
        return any(isinstance(unit, dict) and unit.get("enabled", True) for unit in args)
    return bool(args and args[0])
