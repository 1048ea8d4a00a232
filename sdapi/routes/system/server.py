"""The process: its memory, its models, and its end."""

import os

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response

from sdapi.routes import ServicesDep
from sdapi.schemas.catalog import MemoryResponse
from sdapi.services.system.memory import memory_report

router = APIRouter(prefix="/sdapi/v1", tags=["server"])
#: mounted with `--api-server-stop` only
stop_router = APIRouter(prefix="/sdapi/v1", tags=["server"])


@router.get("/memory")
async def memory() -> MemoryResponse:
    """Bytes of main memory and of the GPU."""
    return MemoryResponse(**await anyio.to_thread.run_sync(memory_report))


@router.post("/unload-checkpoint")
async def unload_checkpoint(services: ServicesDep) -> dict[str, str]:
    """Drop the models from memory before the next job, which loads what it needs."""
    services.unload_checkpoint()
    return {}


@router.post("/reload-checkpoint")
async def reload_checkpoint(services: ServicesDep) -> dict[str, str]:
    """Load the configured checkpoint ahead of the next job."""
    await anyio.to_thread.run_sync(services.reload_checkpoint)
    return {}


@stop_router.post("/server-stop")
async def server_stop(request: Request) -> Response:
    """Stop as on a signal: the running job may finish."""
    stop = BackgroundTask(request.app.state.request_stop)
    return PlainTextResponse("Stopping.", background=stop)


@stop_router.post("/server-kill")
async def server_kill() -> None:
    """End the process at once, with exit code 0."""
    os._exit(0)


@stop_router.post("/server-restart")
async def server_restart() -> Response:
    """501: nothing here starts the process again; let its supervisor do that."""
    return Response(status_code=501)
