"""Whether a server can draw now, and if not, what its operator has to mend."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sdapi.engine.weights.model_file import ModelFile
from sdapi.services.catalog.model_files.weight_file import problem_of
from sdapi.services.container import Services
from sdapi.services.jobs.worker import Worker


class Status(StrEnum):
    """What `/readyz` says; all but the first are a 503."""

    READY = "ready"
    STARTING = "starting"
    STOPPING = "stopping"
    #: no device can be used; only another start may help
    FAILED = "failed"
    #: the checkpoint that it draws with cannot be loaded, and there is no other
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Readiness:
    """A server at one moment."""

    status: Status
    #: each device's worker: ready, starting or failed
    workers: dict[str, str]
    #: a sentence for each fault; no folders, as anyone may ask
    problems: tuple[str, ...] = ()


def readiness(services: Services, *, is_stopping: bool) -> Readiness:
    """Whether some worker can draw. Reads the beginnings of checkpoints when one is broken."""
    workers = services.workers
    # Looked at once: their threads may change it at any time.
    broken = {worker.name: found for worker in workers if (found := worker.unusable) is not None}
    problems = tuple(dict.fromkeys(_problem(*found) for found in broken.values()))
    if services.start_failure is not None:
        problems = (services.start_failure, *problems)
    ready = [worker.name for worker in workers if worker.is_ready]
    if is_stopping:
        status = Status.STOPPING
    elif services.start_failure is not None:
        status = Status.FAILED
    elif not ready:
        status = Status.STARTING
    elif set(ready) <= broken.keys() and not _has_other(services, broken.values()):
        status = Status.UNUSABLE
    else:
        status = Status.READY
    return Readiness(status, {worker.name: _state(worker) for worker in workers}, problems)


def _state(worker: Worker) -> str:
    return "failed" if worker.failure else "ready" if worker.is_ready else "starting"


def _problem(file: ModelFile, reason: str) -> str:
    reason = reason.replace(f"{file.path.parent}/", "").removeprefix(f"{file.path.name}: ")
    return f"the checkpoint {file.path.name} cannot be loaded: {reason}"


def _has_other(services: Services, broken: Iterable[tuple[ModelFile, str]]) -> bool:
    """Whether there is a checkpoint that seems whole, which requests may name."""
    known = {file.path for file, _ in broken}
    others = (c.path for c in services.catalog.checkpoints if c.path not in known)
    return any(problem_of(path) is None for path in others)
