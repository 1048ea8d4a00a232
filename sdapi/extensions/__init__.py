"""What an extension is made of: two hooks, and the names to write them with.

    from sdapi.extensions import Script, hookimpl

    @hookimpl
    def sdapi_scripts() -> list[Script]:
        return [MyScript()]

An extension is a module with hooks: a package with an entry point in the group `sdapi.extensions`,
or a file in the folder `extensions/` of the data directory. `docs/extensions.md` has a complete
one. Everything named here is stable within a minor version.
"""

from typing import TYPE_CHECKING

import pluggy

from sdapi.engine.jobs.stages import Stages, UNetCall
from sdapi.services.scripts.arguments import Arg, NoArgs
from sdapi.services.scripts.script import (
    BOTH,
    IMG2IMG_ONLY,
    Generated,
    Kind,
    Listing,
    Preparation,
    Script,
    ScriptFile,
    ScriptPicture,
    ScriptResult,
    ScriptRun,
    SelectableScript,
)

if TYPE_CHECKING:
    from fastapi import APIRouter

    from sdapi.services.container import Services

__all__ = [
    "BOTH",
    "IMG2IMG_ONLY",
    "Arg",
    "Generated",
    "Hooks",
    "Kind",
    "Listing",
    "NoArgs",
    "Preparation",
    "Script",
    "ScriptFile",
    "ScriptPicture",
    "ScriptResult",
    "ScriptRun",
    "SelectableScript",
    "Stages",
    "UNetCall",
    "hookimpl",
]

PROJECT = "sdapi"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """The hooks an extension may implement; both are called once, at the start."""

    @staticmethod
    @hookspec
    def sdapi_scripts() -> list[Script | SelectableScript]:
        """Scripts, in the order they are listed and run."""
        raise NotImplementedError

    @staticmethod
    @hookspec
    def sdapi_routers(services: "Services") -> list["APIRouter"]:
        """Further routes, mounted as given; they are behind the server's credentials."""
        raise NotImplementedError
