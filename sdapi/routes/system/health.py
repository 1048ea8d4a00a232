"""Health for load balancers, and figures for monitoring."""

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from sdapi import __version__
from sdapi.metrics import CONTENT_TYPE
from sdapi.problems import json_response
from sdapi.queue.metrics import queue_metrics
from sdapi.routes import ServicesDep
from sdapi.services.system.readiness import Readiness, Status

router = APIRouter(tags=["system"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The server's loop lives."""
    return {"status": "ok", "version": __version__}


@router.get(
    "/readyz", responses={503: {"description": "Not ready; `status` and `problems` say why"}}
)
async def readyz(request: Request, services: ServicesDep) -> Response:
    """Whether it can draw; `status` is ready, or with a 503 starting, stopping, failed or unusable.

    Failed: no device can be used. Unusable: the checkpoint that it draws with cannot be loaded,
    and there is no other, or there is none at all; items of its queue wait meanwhile. `problems`
    has a sentence for each fault, also of a server that is ready, where requests may name other
    checkpoints, or the next load may go well. A server of the role `api` draws nothing: it is ready
    when its queue answers. `outbox` tells what waits for an object store; it does not count, for
    it is delivered later.
    """
    outbox = {"outbox": state} if (state := await services.storage.state()) else {}
    now: Readiness = await request.app.state.readiness()
    workers = {} if services.settings.role == "api" else {"workers": now.workers}
    problems = {"problems": now.problems} if now.problems else {}
    body = {"status": now.status, **workers, **problems, **outbox}
    return json_response(body, 200 if now.status is Status.READY else 503)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, services: ServicesDep) -> Response:
    """Figures in Prometheus' text format: requests, queue, phases, cache, memory, failures."""
    text = await anyio.to_thread.run_sync(services.metrics.text)
    text += await queue_metrics(request.app.state.queues)
    return Response(text, headers={"content-type": CONTENT_TYPE})
