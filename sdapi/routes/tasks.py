"""Tasks by their id: status, and progress as events."""

from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect
from starlette.responses import StreamingResponse

from sdapi.errors import Missing
from sdapi.routes import ServicesDep
from sdapi.schemas.problems import problems
from sdapi.schemas.progress import TaskStatusResponse
from sdapi.services.container import Services
from sdapi.services.jobs.tasks import Task
from sdapi.services.jobs.telling.events import statuses
from sdapi.services.jobs.telling.status import status_of

router = APIRouter(prefix="/sdapi/v1", tags=["progress"])
_NO_TASK = 4404
TaskId = Annotated[str, Query(description="`force_task_id`, `id_task`, or the server's own id")]


@router.get("/task", responses=problems(404))
async def task_status(id_task: TaskId, services: ServicesDep) -> TaskStatusResponse:
    """The state of a task: queued, running, done, failed or cancelled; 404 for an unknown one."""
    status = status_of(_find(services, id_task), services.scheduler)
    return TaskStatusResponse.model_validate(asdict(status))


@router.get("/progress/events", response_class=StreamingResponse, responses=problems(404))
async def progress_events(services: ServicesDep, id_task: TaskId) -> StreamingResponse:
    """A task's status at every change, as server-sent events; the last one tells its end."""
    task = _find(services, id_task)

    async def events() -> AsyncGenerator[bytes]:
        async for status in statuses(task, services.scheduler):
            yield b"event: progress\ndata: " + orjson.dumps(asdict(status)) + b"\n\n"

    return StreamingResponse(
        events(), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


@router.websocket("/progress/ws")
async def progress_socket(socket: WebSocket, id_task: str) -> None:
    """The same over a websocket, one JSON text a change; closes when the task is over."""
    services: Services = socket.app.state.services
    task = services.tasks.get(id_task)
    await socket.accept()
    if task is None:
        await socket.close(_NO_TASK, f"there is no task {id_task[:50]!r}")
        return
    try:
        async for status in statuses(task, services.scheduler):
            await socket.send_text(orjson.dumps(asdict(status)).decode())
        await socket.close()
    except WebSocketDisconnect:
        return


def _find(services: Services, id_task: str) -> Task:
    task = services.tasks.get(id_task)
    if task is None:
        raise Missing(f"id_task: there is no task {id_task[:200]!r}")
    return task
