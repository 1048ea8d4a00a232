"""Which scripts there are, and which of them a request names (contract: webui-api 6.3)."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from sdapi.errors import BadRequest, near_names
from sdapi.services.scripts.arguments import read_arguments
from sdapi.services.scripts.script import Kind, Listing, Script, SelectableScript

if TYPE_CHECKING:
    from sdapi.services.container import Services

log = logging.getLogger(__name__)
#: characters of a name that messages repeat
_SHOWN = 100
_KINDS: tuple[Kind, ...] = ("txt2img", "img2img")


class UnknownScript(BadRequest):
    """A script that is not there, or not of the kind it was named as."""

    code = "script_not_found"


@dataclass(frozen=True, slots=True)
class CalledScript:
    """An always-on script with its arguments for one request."""

    script: Script
    args: BaseModel
    #: the request names it, so a failure is the request's
    is_named: bool


@dataclass(frozen=True, slots=True)
class CalledScripts:
    """The scripts of one request."""

    always_on: tuple[CalledScript, ...]
    selected: tuple[SelectableScript, BaseModel] | None


class Scripts:
    """All scripts of this server, in the order they run and are listed."""

    def __init__(self, scripts: Iterable[Script | SelectableScript]) -> None:
        self._selectable: dict[Kind, dict[str, SelectableScript]] = {kind: {} for kind in _KINDS}
        self._always_on: dict[Kind, dict[str, Script]] = {kind: {} for kind in _KINDS}
        self._listed: dict[Kind, list[Script | SelectableScript]] = {kind: [] for kind in _KINDS}
        for script in scripts:
            self._add(script)

    def _add(self, script: Script | SelectableScript) -> None:
        key = script.name.lower()
        for kind in script.kinds:
            if key in self._selectable[kind] or key in self._always_on[kind]:
                log.warning("script %r is there already; the second one is left out", script.name)
                continue
            self._listed[kind].append(script)
            if isinstance(script, Script):
                self._always_on[kind][key] = script
            else:
                self._selectable[kind][key] = script

    @property
    def always_on(self) -> tuple[Script, ...]:
        """The scripts that run with every generation of a kind, each once."""
        return tuple(
            {id(each): each for of in self._always_on.values() for each in of.values()}.values()
        )

    def find(
        self, kind: Kind, name: str | None, args: list[Any] | Any, always_on: Mapping[str, Any]
    ) -> CalledScripts:
        """The scripts that a request names, and those that always run, with their arguments.

        Raises `UnknownScript` for a name, `BadRequest` for arguments.
        """
        selected = self._find_selected(kind, name, args) if name else None
        named: dict[str, tuple[str, Any]] = {}
        for given, entry in always_on.items():
            key = given.lower()
            if key in self._selectable[kind]:
                raise UnknownScript(
                    "Cannot have a selectable script in the always on scripts params",
                    place=f"alwayson_scripts.{given[:_SHOWN]}",
                )
            if key not in self._always_on[kind]:
                raise _unknown("alwayson_scripts", given, self._always_on[kind].values())
            named[key] = (given, entry.get("args"))
        called: list[CalledScript] = []
        for key, script in self._always_on[kind].items():
            spelled, given = named.get(key, (script.name, None))
            args = read_arguments(script.args, given, f"alwayson_scripts.{spelled}.args")
            called.append(CalledScript(script, args, key in named))
        return CalledScripts(tuple(called), selected)

    def _find_selected(
        self, kind: Kind, name: str, args: Any
    ) -> tuple[SelectableScript, BaseModel]:
        script = self._selectable[kind].get(name.lower())
        if script is None:
            raise _unknown("script_name", name, self._selectable[kind].values())
        return script, read_arguments(script.args, args, "script_args")

    def names(self, kind: Kind) -> list[str]:
        """As `GET /scripts` lists them."""
        shown = [s for s in self._listed[kind] if s.listing is not Listing.NOWHERE]
        return [s.name if s.listing is Listing.NAME else s.name.lower() for s in shown]

    def info(self, services: "Services") -> list[dict[str, Any]]:
        """As `GET /script-info` lists them: those of txt2img, then those of img2img."""
        return [
            {
                "name": script.name.lower(),
                "is_alwayson": isinstance(script, Script),
                "is_img2img": kind == "img2img",
                "args": script.describe(kind, services),
            }
            for kind in _KINDS
            for script in self._listed[kind]
            if script.listing is Listing.FULL
        ]


def _unknown(field: str, name: str, known: Iterable[Script | SelectableScript]) -> UnknownScript:
    """The webui's text, and the near names in the place that it does not tell."""
    shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "…"
    near = near_names(name.lower(), (script.name.lower() for script in known))
    return UnknownScript(
        f"Script '{name}' not found", place=f"{field} {shown!r} (the nearest are {near})"
    )
