"""What the webui's page asks its server; there with the page, not with `--nowebui`.

Contract: webui-api 16.
"""

import json
from datetime import datetime
from typing import Any

import anyio.to_thread
from fastapi import APIRouter
from starlette.responses import Response

from sdapi.options import option_specs
from sdapi.routes import ServicesDep
from sdapi.services.sysinfo import system_information

router = APIRouter(prefix="/internal", tags=["page"])


@router.get("/ping")
async def ping() -> dict[str, str]:
    """The server answers."""
    return {}


@router.get("/quicksettings-hint")
async def quicksettings_hint() -> list[dict[str, str]]:
    """Every option with its description."""
    return [{"name": s.key, "label": s.description or s.key} for s in option_specs().values()]


@router.get("/profile-startup")
async def profile_startup(services: ServicesDep) -> dict[str, Any]:
    """How long the start took, in seconds, by its parts."""
    return services.startup.report()


@router.get("/sysinfo", response_class=Response)
async def sysinfo(services: ServicesDep, attachment: bool = False) -> Response:
    """What this server runs on, for bug reports; no credentials."""
    content = await anyio.to_thread.run_sync(system_information, services)
    moment = datetime.now().strftime("%Y-%m-%d-%H-%M")
    kind = "attachment" if attachment else "inline"
    return Response(
        json.dumps(content, indent=4, default=str),
        headers={"content-disposition": f'{kind}; filename="sysinfo-{moment}.json"'},
        media_type="text/plain",
    )


@router.get("/sysinfo-download", response_class=Response)
async def sysinfo_download(services: ServicesDep) -> Response:
    """The same as a file to save."""
    return await sysinfo(services, attachment=True)
