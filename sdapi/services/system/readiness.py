"""Whether a server can draw now, and if not, what its operator has to mend."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import anyio.to_thread

from sdapi.services.catalog.catalog import no_checkpoint
from sdapi.services.container import Services
from sdapi.services.jobs.preload import RETRY_S, LoadFault
from sdapi.services.jobs.worker import Worker
from sdapi.settings import Settings


class Status(StrEnum):
    """What `/readyz` says; all but the first are a 503."""

    READY = "ready"
    STARTING = "starting"
    STOPPING = "stopping"
    #: no device can be used; only another start may help
    FAILED = "failed"
    #: the checkpoint that it draws with cannot be loaded, and there is no other; or there is none
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Readiness:
    """A server at one moment."""

    status: Status
    #: each device's worker: ready, starting or failed
    workers: dict[str, str]
    #: a sentence for each fault; no folders, as anyone may ask
    problems: tuple[str, ...] = ()


async def readiness(services: Services, *, is_stopping: bool = False) -> Readiness:
    """Whether some worker can draw. Looks at files, in a thread, when a checkpoint is broken."""
    workers = services.workers
    # Looked at once: their threads may change it at any time.
    faults = {worker.name: fault for worker in workers if (fault := worker.load_fault) is not None}
    ready = {worker.name for worker in workers if worker.is_ready}
    problems = dict.fromkeys(_problem(fault) for fault in faults.values())
    if services.start_failure is not None:
        problems = {services.start_failure: None} | problems
    if is_stopping:
        status = Status.STOPPING
    elif services.start_failure is not None:
        status = Status.FAILED
    elif not ready:
        status = Status.STARTING
    elif not services.catalog.checkpoint_paths:
        status = Status.UNUSABLE
        problems[_no_checkpoint(services.settings)] = None
    else:
        broken = {name: fault.file.path for name, fault in faults.items() if fault.is_of_file}
        is_usable = not ready <= broken.keys() or await _has_other(services, broken.values())
        status = Status.READY if is_usable else Status.UNUSABLE
    return Readiness(status, {worker.name: _state(worker) for worker in workers}, tuple(problems))


async def unusable(services: Services) -> str | None:
    """What is wrong with a server that has workers and can draw nothing; None of any other."""
    now = await readiness(services)
    return "; ".join(now.problems) if now.status is Status.UNUSABLE else None


def _state(worker: Worker) -> str:
    return "failed" if worker.failure else "ready" if worker.is_ready else "starting"


def _problem(fault: LoadFault) -> str:
    path = fault.file.path
    reason = fault.reason.replace(f"{path.parent}/", "").removeprefix(f"{path.name}: ")
    again = f"; it is tried again every {RETRY_S:g} s" if fault.may_pass else ""
    return f"the checkpoint {path.name} cannot be loaded: {reason}{again}"


def _no_checkpoint(settings: Settings) -> str:
    folder = settings.checkpoint_dirs[0]
    is_below = folder.is_relative_to(settings.data_dir)
    return no_checkpoint(folder.relative_to(settings.data_dir if is_below else folder.parent))


async def _has_other(services: Services, broken: Collection[Path]) -> bool:
    """Whether there is a checkpoint that seems whole, which requests may name."""
    others = (path for path in services.catalog.checkpoint_paths if path not in broken)

    def look() -> bool:
        return any(services.known_problems.of(path) is None for path in others)

    return await anyio.to_thread.run_sync(look)
