import asyncio

import pytest

from sdapi.engine.jobs.job import Result
from sdapi.errors import Conflict, StorageFailed, TaskCancelled
from sdapi.services.jobs.tasks import State, Task, TaskRegistry
from sdapi.services.jobs.telling.progress import progress_of

RESULT = Result((), {})


class Listening:
    """Keeps what it hears of ends."""

    def __init__(self) -> None:
        self.ends: list[tuple[Task, object]] = []

    def began(self, task: Task) -> None:
        """Nothing to keep."""

    def ended(self, task: Task, outcome: object) -> None:
        self.ends.append((task, outcome))


@pytest.fixture
def tasks() -> TaskRegistry:
    return TaskRegistry()


def test_task_goes_from_waiting_to_done(tasks: TaskRegistry):
    task = tasks.create("txt2img", "a", "user")
    assert (task.state, task.uid, tasks.open_count) == (State.QUEUED, "user", 1)
    future = task.future
    assert future is not None
    assert tasks.begin(task)
    assert (task.state, tasks.running, tasks.latest) == (State.RUNNING, task, task)
    tasks.finish(task, RESULT)
    assert (task.state, tasks.running, tasks.open_count) == (State.DONE, None, 0)
    assert future.result(0) is RESULT
    assert tasks.get("a") is task


def test_ended_task_keeps_no_pictures(tasks: TaskRegistry):
    task = tasks.create("txt2img", "a")
    tasks.begin(task)
    tasks.finish(task, RESULT)
    assert (task.future, task.job, task.monitor.latent) == (None, None, None)


def test_failed_task_hands_on_its_error(tasks: TaskRegistry):
    task = tasks.create("txt2img")
    future = task.future
    assert future is not None
    tasks.begin(task)
    tasks.finish(task, ValueError("x"))
    assert task.state is State.FAILED
    with pytest.raises(ValueError, match="x"):
        future.result(0)


def test_id_in_use_is_a_conflict_until_its_task_ends(tasks: TaskRegistry):
    first = tasks.create("txt2img", "a")
    with pytest.raises(Conflict, match="'a' is already queued"):
        tasks.create("txt2img", "a")
    tasks.begin(first)
    with pytest.raises(Conflict, match="'a' is already running"):
        tasks.create("img2img", "a")
    tasks.finish(first, RESULT)
    second = tasks.create("txt2img", "a")
    assert tasks.get("a") is second
    assert second.number > first.number


def test_made_ids_differ_and_look_like_the_webuis(tasks: TaskRegistry):
    names = {tasks.create("img2img").id for _ in range(50)}
    assert len(names) == 50
    assert all(name.startswith("task(img2img-") for name in names)


def test_waiting_task_is_cancelled_at_once_and_never_begins(tasks: TaskRegistry):
    task = tasks.create("txt2img")
    future = task.future
    assert future is not None
    tasks.cancel(task)
    assert (task.state, task.error) == (State.CANCELLED, "cancelled before it began")
    assert future.cancelled()
    assert not tasks.begin(task)


def test_running_task_is_told_to_stop_and_keeps_its_result(tasks: TaskRegistry):
    task = tasks.create("txt2img")
    tasks.begin(task)
    tasks.cancel(task)
    assert task.monitor.interrupted.is_set()
    assert task.state is State.RUNNING
    tasks.finish(task, RESULT)
    tasks.cancel(task)
    assert task.state is State.DONE


def test_task_that_was_stopped_while_it_ran_is_cancelled_and_says_by_whom(tasks: TaskRegistry):
    by_caller, by_server = tasks.create("txt2img"), tasks.create("txt2img")
    part = Result((), {}, interrupted=True)
    tasks.begin(by_caller)
    tasks.cancel(by_caller)
    tasks.finish(by_caller, part)
    tasks.begin(by_server)
    tasks.cut_short()
    tasks.finish(by_server, part)
    assert (by_caller.state, by_server.state) == (State.CANCELLED, State.CANCELLED)
    assert (by_caller.error or "").startswith("interrupted")
    assert (by_server.error or "").startswith("the server was stopped")


def test_task_whose_batch_was_skipped_is_done(tasks: TaskRegistry):
    task = tasks.create("txt2img")
    tasks.begin(task)
    task.monitor.skipped.set()
    tasks.finish(task, Result((), {}, interrupted=True))
    assert task.state is State.DONE


def drawn(tasks: TaskRegistry) -> Task:
    """A task that is drawn and awaits its end, since its pictures are to be saved."""
    task = tasks.create("txt2img", "one", awaits_end=True)
    tasks.begin(task)
    tasks.finish(task, RESULT)
    return task


def test_drawn_task_is_open_until_its_pictures_are_saved_and_no_interrupt_hits_it(
    tasks: TaskRegistry,
):
    task = drawn(tasks)
    tasks.cancel(task)
    assert (task.state, tasks.running) == (State.RUNNING, None)
    assert not task.monitor.interrupted.is_set()
    with pytest.raises(Conflict):
        tasks.create("txt2img", "one")
    tasks.end(task, None)
    assert (task.state, task.error) == (State.DONE, None)


def test_drawn_task_whose_pictures_cannot_be_saved_has_failed(tasks: TaskRegistry):
    task = drawn(tasks)
    tasks.end(task, StorageFailed("the disk is full"))
    assert (task.state, task.error) == (State.FAILED, "the disk is full")


def test_task_whose_caller_has_left_ends_with_its_job(tasks: TaskRegistry):
    task = tasks.create("txt2img", awaits_end=True)
    tasks.begin(task)
    tasks.end(task, asyncio.CancelledError())
    assert task.state is State.RUNNING
    tasks.finish(task, RESULT)
    assert task.state is State.DONE


def test_interrupted_task_stays_cancelled_when_there_is_nothing_to_save(tasks: TaskRegistry):
    task = tasks.create("txt2img", awaits_end=True)
    tasks.begin(task)
    tasks.cancel(task)
    tasks.finish(task, Result((), {}, interrupted=True))
    tasks.end(task, TaskCancelled("interrupted before its first picture"))
    assert (task.state, (task.error or "")[:12]) == (State.CANCELLED, "interrupted:")


def test_script_that_was_stopped_is_cancelled(tasks: TaskRegistry):
    parent = tasks.create("txt2img")
    inner = tasks.create_inner(parent)
    tasks.begin(inner)
    tasks.cancel(parent)
    tasks.finish(inner, Result((), {}, interrupted=True))
    tasks.all_drawn(parent, None)
    assert (parent.state, inner.state) == (State.CANCELLED, State.CANCELLED)


def test_script_whose_pictures_cannot_be_saved_is_told_as_failed():
    observer = Listening()
    tasks = TaskRegistry(observer)
    parent = tasks.create("txt2img", awaits_end=True)
    inner = tasks.create_inner(parent)
    tasks.begin(inner)
    tasks.finish(inner, RESULT)
    tasks.all_drawn(parent, None)
    full = StorageFailed("the disk is full")
    tasks.end(parent, full)
    assert observer.ends == [(inner, RESULT), (parent, full)]
    assert parent.state is State.FAILED


@pytest.mark.parametrize("stop", ["cancel", "cut_short"])
def test_script_that_was_stopped_after_its_last_drawing_is_done(tasks: TaskRegistry, stop: str):
    parent = tasks.create("txt2img")
    inner = tasks.create_inner(parent)
    tasks.begin(inner)
    tasks.finish(inner, RESULT)
    tasks.cancel(parent) if stop == "cancel" else tasks.cut_short()
    tasks.all_drawn(parent, None)
    assert (parent.state, parent.error) == (State.DONE, None)


def test_script_is_cancelled_by_a_drawing_that_did_not_begin(tasks: TaskRegistry):
    parent = tasks.create("txt2img")
    first = tasks.create_inner(parent)
    tasks.begin(first)
    tasks.finish(first, RESULT)
    tasks.create_inner(parent)
    tasks.cancel(parent)
    tasks.all_drawn(parent, None)
    assert parent.state is State.CANCELLED


def test_old_tasks_are_forgotten_but_open_ones_never(tasks: TaskRegistry):
    kept = tasks.create("txt2img", "open")
    for _ in range(1100):
        tasks.cancel(tasks.create("txt2img"))
    assert tasks.get("open") is kept
    assert len(tasks._tasks) == 1000  # pyright: ignore[reportPrivateUsage]


def test_progress_counts_passes_and_steps(tasks: TaskRegistry):
    task = tasks.create("txt2img")
    assert progress_of(task) == 0
    tasks.begin(task)
    assert progress_of(task) == pytest.approx(0.01)
    task.monitor.job_count, task.monitor.job_no = 2, 1
    task.monitor.sampling_steps, task.monitor.sampling_step = 10, 5
    assert progress_of(task) == pytest.approx(0.01 + 0.5 + 0.25)
