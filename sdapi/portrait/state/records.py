"""What is remembered of portraits: accounts, jobs and trained models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Literal

Base = Literal["sd15", "xl"]
BASES: Final[tuple[Base, ...]] = ("sd15", "xl")

#: the name space of the queue surface's user ids; an AppId's is `owner_of`
QUEUE_OWNER: Final = "queue"


def owner_of(app_id: str) -> str:
    """The name space of an AppId's models and jobs."""
    return f"app:{app_id}"


@dataclass(frozen=True, slots=True)
class Account:
    """Who may call the REST surface."""

    app_id: str
    token: str = field(repr=False)
    #: the kinds of base model it may train and create with
    models: tuple[Base, ...] = BASES
    #: calls it may make, None for any number
    quota: int | None = None
    used: int = 0
    created_s: float = 0.0


class JobState(IntEnum):
    """Where a job is; it never goes back."""

    INITIALISED = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class NewJob:
    """A training to be done; `request` is what the trainer is given, as JSON values."""

    owner: str
    model_id: str
    request: Mapping[str, Any]
    #: whose call is given back when the job fails
    app_id: str | None = None


@dataclass(frozen=True, slots=True)
class Job(NewJob):
    """A training and how far it has got."""

    id: int = 0
    state: JobState = JobState.INITIALISED
    message: str = ""
    #: JSON text, empty until the job is done
    result: str = ""
    created_s: float = 0.0
    #: how often a server has begun with it
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended; `model` describes what it made, None after a failure."""

    message: str
    result: str
    model: Mapping[str, Any] | None = None

    @property
    def state(self) -> JobState:
        return JobState.FAILED if self.model is None else JobState.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model; its files are kept apart, see `folders`."""

    owner: str
    model_id: str
    #: base, role, trigger, providers …, as its training described it
    about: Mapping[str, Any]
    created_s: float
