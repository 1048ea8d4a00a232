"""Progress of the running job, and stopping it."""

import time
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query

from sdapi.engine.jobs.job import Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.errors import Missing
from sdapi.routes import ServicesDep
from sdapi.schemas.problems import problems
from sdapi.schemas.progress import ProgressResponse, ProgressState
from sdapi.services.container import Services
from sdapi.services.jobs.tasks import State, Task
from sdapi.services.jobs.telling.progress import progress_of

router = APIRouter(prefix="/sdapi/v1", tags=["progress"])
TaskId = Annotated[str | None, Query(description="A task; without it the running one")]


@router.get("/progress")
async def progress(
    services: ServicesDep,
    skip_current_image: Annotated[bool, Query(description="Leave out the preview")] = False,
    id_task: TaskId = None,
) -> ProgressResponse:
    """How far the running job is, or the task of `id_task`; zeros when idle.

    A task that is over has 1 if it is done, else 0, with its own last counters; an unknown one has
    zeros, since who polls may be faster than the request. `textinfo` says which of them it is.
    """
    task = services.tasks.get(id_task) if id_task else services.tasks.running
    if task is None and id_task:
        return _still(0.0, ProgressState(), f"there is no task {id_task[:200]!r}")
    if task is None:
        return _still(0.0, _last_state(services.tasks.latest, services.tasks.idle_monitor), None)
    if not task.is_open:
        share = 1.0 if task.state is State.DONE else 0.0
        why = f": {task.error}" if task.error else ""
        told = f"task {task.state}{why}"
        return _still(share, _last_state(task, task.monitor), told)
    fraction = progress_of(task)
    eta = 0.0
    if task.started is not None and fraction > 0:
        elapsed = time.time() - task.started
        eta = elapsed / fraction - elapsed
    image = None
    if not skip_current_image and task.monitor.latent is not None:
        options = services.options.current
        image = await anyio.to_thread.run_sync(services.previews.current, task, options)
    return ProgressResponse(
        progress=min(fraction, 1.0),
        eta_relative=eta,
        state=_state(task),
        current_image=image,
        textinfo=task.monitor.text,
    )


@router.post("/interrupt", responses=problems(404))
async def interrupt(services: ServicesDep, id_task: TaskId = None) -> dict[str, str]:
    """Stop the running job within a step, keeping what it has; or the job of `id_task`."""
    task = _task(services, id_task)
    if task is not None:
        services.tasks.cancel(task)
    else:
        services.tasks.idle_monitor.interrupted.set()  # shown, and without effect on later jobs
    return {}


@router.post("/skip", responses=problems(404))
async def skip(services: ServicesDep, id_task: TaskId = None) -> None:
    """Cut the current batch short; the job's next batch runs."""
    task = _task(services, id_task)
    monitor = services.tasks.idle_monitor if task is None else task.monitor
    monitor.skipped.set()


def _task(services: Services, id_task: str | None) -> Task | None:
    """The task of an id, else the running one, None when idle; raises `Missing`."""
    if not id_task:
        return services.tasks.running
    task = services.tasks.get(id_task)
    if task is None:
        raise Missing(f"id_task: there is no task {id_task[:200]!r}")
    return task


def _state(task: Task) -> ProgressState:
    monitor, job = task.monitor, task.job
    name = f"scripts_{task.kind}" if task.kind in ("txt2img", "img2img") else task.kind
    if isinstance(job, Job) and job.n_iter > 1 and monitor.job_count > 0:
        name = f"Batch {min(monitor.job_no + 1, job.n_iter)} out of {job.n_iter}"
    return ProgressState(
        skipped=monitor.skipped.is_set(),
        interrupted=monitor.interrupted.is_set(),
        job=name,
        job_count=monitor.job_count or -1,
        job_timestamp=_timestamp(task),
        job_no=monitor.job_no,
        sampling_step=monitor.sampling_step,
        sampling_steps=monitor.sampling_steps,
    )


def _still(share: float, state: ProgressState, text: str | None) -> ProgressResponse:
    return ProgressResponse(progress=share, eta_relative=0.0, state=state, textinfo=text)


def _last_state(task: Task | None, monitor: Monitor) -> ProgressState:
    """Nothing runs, but for what the job left behind, as the webui has it."""
    return ProgressState(
        skipped=monitor.skipped.is_set(),
        interrupted=monitor.interrupted.is_set(),
        job_timestamp="0" if task is None else _timestamp(task),
        job_no=monitor.job_no,
        sampling_step=monitor.sampling_step,
        sampling_steps=monitor.sampling_steps,
    )


def _timestamp(task: Task) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.localtime(task.started or task.created))
