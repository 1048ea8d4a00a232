"""What is told of work that is not whole, since the server's stop or an interrupt has cut it."""

from dataclasses import replace
from typing import Final

from sdapi.engine.jobs.job import Result
from sdapi.errors import ShuttingDown
from sdapi.services.jobs.tasks import Task

WARNING: Final = (
    "the server was stopped while this was being made: what is here is unfinished, or not all of it"
)
#: where an answer is ours to shape; the webui's own says nothing of an interrupt
INTERRUPTED: Final = "interrupted: what is here is unfinished, or not all of it"


def told_of_stop(task: Task, result: Result, *, wants_whole: bool = False) -> Result:
    """A task's result, with a warning where the server's stop has cut it short.

    Raises `ShuttingDown` when there is nothing, or `wants_whole` has no use for a part.
    """
    if not (task.is_cut_short and result.interrupted):
        return result
    if wants_whole or not result.images:
        raise stopped()
    return replace(result, warnings=(*result.warnings, WARNING))


def told_of_interrupt(task: Task, result: Result) -> Result:
    """A task's result, with a warning where somebody's interrupt has cut it."""
    if task.is_cut_short or not (result.interrupted and task.monitor.interrupted.is_set()):
        return result
    return replace(result, warnings=(*result.warnings, INTERRUPTED))


def stopped() -> ShuttingDown:
    """What whoever asked hears when there is nothing for them."""
    return ShuttingDown("the server was stopped before this was done; send it again")
