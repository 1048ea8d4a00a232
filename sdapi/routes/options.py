"""The server's options, and the flags it was started with."""

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Body
from starlette.responses import Response

from sdapi.problems import json_response
from sdapi.routes import ServicesDep
from sdapi.schemas.coercion import Object
from sdapi.schemas.options import options_model
from sdapi.schemas.problems import problems

router = APIRouter(prefix="/sdapi/v1", tags=["options"])


@router.get("/options", response_model=options_model())
async def get_options(services: ServicesDep) -> Response:
    """Every option with its value.

    As in the webui whole numbers are floats, unless the default is 0.
    """
    return json_response(await anyio.to_thread.run_sync(services.option_changes.shown))


@router.post("/options", responses=problems())
async def set_options(
    values: Annotated[
        Object, Body(examples=[{"sd_model_checkpoint": "tinyA", "CLIP_stop_at_last_layers": 2}])
    ],
    services: ServicesDep,
) -> None:
    """Change options for the requests that come later, and write them to `config.json`.

    All of them are changed or none; an unknown key is refused.
    """
    await services.option_changes.apply(values)


@router.get("/cmd-flags")
async def cmd_flags(services: ServicesDep) -> dict[str, Any]:
    """The command line, without credentials."""
    return services.settings.cmd_flags()
