"""Scripts and extensions."""

import anyio.to_thread
from fastapi import APIRouter

from sdapi.routes import ServicesDep
from sdapi.schemas.catalog import ExtensionItem, ScriptInfo, ScriptsList

router = APIRouter(prefix="/sdapi/v1", tags=["scripts"])


@router.get("/scripts")
async def scripts(services: ServicesDep) -> ScriptsList:
    """The names of the scripts that requests may use, in lower case."""
    known = services.scripts
    return ScriptsList(txt2img=known.names("txt2img"), img2img=known.names("img2img"))


@router.get("/script-info")
async def script_info(services: ServicesDep) -> list[ScriptInfo]:
    """The arguments of each script, in the order of their positions."""
    known = services.scripts
    found = await anyio.to_thread.run_sync(known.info, services)
    return [ScriptInfo(**each) for each in found]


@router.get("/extensions")
async def extensions(services: ServicesDep) -> list[ExtensionItem]:
    """Extensions that are not part of the server; `error` says why one is not in use."""
    return [
        ExtensionItem(
            name=each.name,
            remote=each.remote,
            branch="",
            commit_hash="",
            version=each.version,
            commit_date="",
            enabled=each.enabled,
            error=each.error,
        )
        for each in services.extensions
    ]
