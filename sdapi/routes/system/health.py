"""Health for load balancers, and figures for monitoring."""

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from sdapi import __version__
from sdapi.metrics import CONTENT_TYPE
from sdapi.problems import json_response
from sdapi.queue.metrics import queue_metrics
from sdapi.routes import ServicesDep

router = APIRouter(tags=["system"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The server's loop lives."""
    return {"status": "ok", "version": __version__}


@router.get("/readyz", responses={503: {"description": "Models load, or none can start"}})
async def readyz(request: Request, services: ServicesDep) -> Response:
    """A worker can draw; 503 while models load, when none can start, or while the server stops.

    A server of the role `api` draws nothing: it is ready when its queue answers. `outbox` tells
    what waits for an object store; it does not count, for it is delivered later.
    """
    outbox = {"outbox": state} if (state := await services.storage.state()) else {}
    if services.settings.role == "api":
        is_ready = await request.app.state.queues.is_reachable()
        is_ready &= not request.app.state.is_stopping
        status = "ready" if is_ready else "starting"
        return json_response({"status": status, **outbox}, 200 if is_ready else 503)
    workers = {
        worker.name: "failed" if worker.failure else "ready" if worker.is_ready else "starting"
        for worker in services.workers
    }
    is_stopping = request.app.state.is_stopping
    status = "stopping" if is_stopping else "ready" if services.is_ready else "starting"
    body = {"status": status, "workers": workers, **outbox}
    return json_response(body, 200 if status == "ready" else 503)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, services: ServicesDep) -> Response:
    """Figures in Prometheus' text format: requests, queue, phases, cache, memory, failures."""
    text = await anyio.to_thread.run_sync(services.metrics.text)
    text += await queue_metrics(request.app.state.queues)
    return Response(text, headers={"content-type": CONTENT_TYPE})
