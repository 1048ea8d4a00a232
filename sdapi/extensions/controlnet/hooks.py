"""ControlNet as an extension: its script and its routes."""

from typing import TYPE_CHECKING

from sdapi.extensions import hookimpl
from sdapi.extensions.controlnet.m2m import MovieToMovie
from sdapi.extensions.controlnet.script import ControlNet
from sdapi.services.scripts.script import Script, SelectableScript

if TYPE_CHECKING:
    from fastapi import APIRouter

    from sdapi.services.container import Services


@hookimpl
def sdapi_scripts() -> list[Script | SelectableScript]:
    """In the order of the reference."""
    return [ControlNet(), MovieToMovie()]


@hookimpl
def sdapi_routers(services: "Services") -> list["APIRouter"]:
    """`/controlnet/*`."""
    from sdapi.extensions.controlnet.api.routes import router

    return [router(services)]
