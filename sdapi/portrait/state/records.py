"""What is remembered of portraits: accounts, jobs and trained models."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Literal, cast

Base = Literal["sd15", "xl"]
BASES: Final[tuple[Base, ...]] = ("sd15", "xl")

#: the name space of the queue surface's user ids; an AppId's is `owner_of`
QUEUE_OWNER: Final = "queue"
log = logging.getLogger(__name__)


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
    """A training and how far it has got.

    `request` is empty when it has ended, and where what is stored cannot be read.
    """

    id: int = 0
    state: JobState = JobState.INITIALISED
    message: str = ""
    #: JSON text, empty until the job is done
    result: str = ""
    created_s: float = 0.0
    #: how often a server has begun with it
    attempts: int = 0


def kept_request(job_id: int, text: str | bytes) -> Mapping[str, Any]:
    """A job's request as a store kept it; empty if it is no JSON object.

    A job must be read all the same: it could not be ended otherwise.
    """
    try:
        kept = json.loads(text)
    except (ValueError, RecursionError):
        kept = None
    if isinstance(kept, dict):
        return cast("dict[str, Any]", kept)
    log.error("the request of portrait job %d cannot be read", job_id)
    return {}


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
