"""What the webui's page asks its server; there with the page, not with `--nowebui`.

Contract: webui-api 16.
"""

import json
import time
from datetime import datetime
from typing import Any

import anyio.to_thread
from fastapi import APIRouter
from starlette.responses import Response

from sdapi.options import option_specs
from sdapi.routes import ServicesDep
from sdapi.schemas.progress import InternalProgressRequest, InternalProgressResponse
from sdapi.services.container import Services
from sdapi.services.jobs.tasks import State, Task
from sdapi.services.jobs.telling.progress import work_done
from sdapi.services.system.sysinfo import system_information

router = APIRouter(prefix="/internal", tags=["page"])


@router.get("/ping")
async def ping() -> dict[str, str]:
    """The server answers."""
    return {}


@router.get("/pending-tasks")
async def pending_tasks(services: ServicesDep) -> dict[str, Any]:
    """The ids of the tasks that wait."""
    waiting = [task.id for task in services.tasks.queued]
    return {"size": len(waiting), "tasks": waiting}


@router.post("/progress")
async def progress(
    body: InternalProgressRequest, services: ServicesDep
) -> InternalProgressResponse:
    """How far a task is, with a preview when there is a newer one than the caller has."""
    task = services.tasks.get(body.id_task) if body.id_task else services.tasks.running
    if task is None or task.state is not State.RUNNING:
        return _not_running(task, services)
    share, elapsed = min(work_done(task), 1.0), time.time() - (task.started or task.created)
    options, preview, number = services.options.current, None, body.id_live_preview
    newest = services.previews.number(task, options)
    if body.live_preview and newest is not None and newest != number:
        fmt = options.text("live_previews_image_format") or "png"
        encoded = await anyio.to_thread.run_sync(
            services.previews.current, task, options, "live_previews_image_format"
        )
        if encoded is not None:
            preview, number = f"data:image/{fmt};base64,{encoded}", newest
    return InternalProgressResponse(
        active=True,
        queued=False,
        completed=False,
        progress=share,
        eta=elapsed / share - elapsed if share > 0 else None,
        live_preview=preview,
        id_live_preview=number,
    )


def _not_running(task: Task | None, services: Services) -> InternalProgressResponse:
    waiting = services.tasks.queued
    is_queued = task in waiting
    text = "Waiting..."
    if task is not None and is_queued:
        text = f"In queue: {waiting.index(task) + 1}/{len(waiting)}"
    return InternalProgressResponse(
        active=False,
        queued=is_queued,
        completed=task is not None and not task.is_open,
        id_live_preview=-1,
        textinfo=text,
    )


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
