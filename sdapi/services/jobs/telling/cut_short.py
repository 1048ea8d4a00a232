"""What is told of work that the server's stop has cut short."""

from dataclasses import replace
from typing import Final

from sdapi.engine.jobs.job import Result
from sdapi.errors import ShuttingDown
from sdapi.services.jobs.tasks import Task

WARNING: Final = (
    "the server was stopped while this was being made: what is here is unfinished, or not all of it"
)


def told_of_stop(task: Task, result: Result, *, wants_whole: bool = False) -> Result:
    """A task's result, with a warning where the server's stop has cut it short.

    Raises `ShuttingDown` when there is nothing, or `wants_whole` has no use for a part.
    """
    if not (task.is_cut_short and result.interrupted):
        return result
    if wants_whole or not result.images:
        raise stopped()
    return replace(result, warnings=(*result.warnings, WARNING))


def stopped() -> ShuttingDown:
    """What whoever asked hears when there is nothing for them."""
    return ShuttingDown("the server was stopped before this was done; send it again")
