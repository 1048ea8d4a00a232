import threading
import time
from collections.abc import Callable

import pytest

from sdapi.engine.job import Result
from sdapi.errors import Conflict, QueueFull, ShuttingDown
from sdapi.services.jobs.progress import progress_of
from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import State, Task, TaskRegistry

RESULT = Result((), {})


def nothing(task: Task) -> bool:
    return False


def only(*wanted: str) -> Callable[[Task], bool]:
    return lambda task: task.id in wanted


@pytest.fixture
def tasks() -> TaskRegistry:
    return TaskRegistry()


def queued(tasks: TaskRegistry, scheduler: Scheduler, *ids: str) -> list[Task]:
    made = [tasks.create("txt2img", name) for name in ids]
    for task in made:
        scheduler.put(task)
    return made


def taken(scheduler: Scheduler, is_loaded: Callable[[Task], bool] = nothing) -> str | None:
    task = scheduler.take(is_loaded, 0.01)
    return task.id if task else None


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
    assert task.state is State.CANCELLED
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


def test_first_come_is_first_served(tasks: TaskRegistry):
    scheduler = Scheduler(10)
    made = queued(tasks, scheduler, "a", "b", "c")
    assert [scheduler.position(task) for task in made] == [0, 1, 2]
    assert [taken(scheduler) for _ in range(4)] == ["a", "b", "c", None]


def test_queue_over_its_limit_is_refused(tasks: TaskRegistry):
    scheduler = Scheduler(2)
    queued(tasks, scheduler, "a", "b")
    with pytest.raises(QueueFull, match="2 jobs are waiting") as refused:
        queued(tasks, scheduler, "c")
    assert refused.value.retry_after_s
    taken(scheduler)
    queued(tasks, scheduler, "d")
    assert scheduler.depth == 2


def test_cancelled_task_makes_room_and_is_not_taken(tasks: TaskRegistry):
    scheduler = Scheduler(2)
    first, _ = queued(tasks, scheduler, "a", "b")
    tasks.cancel(first)
    assert scheduler.position(first) is None
    queued(tasks, scheduler, "c")
    assert [taken(scheduler) for _ in range(3)] == ["b", "c", None]


def test_loaded_checkpoint_is_preferred_but_nobody_waits_forever(tasks: TaskRegistry):
    scheduler = Scheduler(100)
    queued(tasks, scheduler, "other", *(f"mine{n}" for n in range(10)))
    mine = only(*(f"mine{n}" for n in range(10)))
    order = [taken(scheduler, mine) for _ in range(11)]
    assert order.index("other") == 4
    assert [name for name in order if name != "other"] == [f"mine{n}" for n in range(10)]


def test_preference_looks_only_a_little_ahead(tasks: TaskRegistry):
    scheduler = Scheduler(100)
    queued(tasks, scheduler, *(f"other{n}" for n in range(20)), "mine")
    assert taken(scheduler, only("mine")) == "other0"


def test_worker_that_waits_is_woken_by_a_new_task(tasks: TaskRegistry):
    scheduler, found = Scheduler(10), list[Task | None]()
    worker = threading.Thread(target=lambda: found.append(scheduler.take(nothing, 10)))
    worker.start()
    time.sleep(0.05)
    (task,) = queued(tasks, scheduler, "a")
    worker.join(5)
    assert found == [task]


def test_closed_scheduler_returns_what_waited_and_refuses_the_rest(tasks: TaskRegistry):
    scheduler = Scheduler(10)
    made = queued(tasks, scheduler, "a", "b")
    assert scheduler.close(ShuttingDown("the server is shutting down")) == made
    assert taken(scheduler) is None
    with pytest.raises(ShuttingDown):
        queued(tasks, scheduler, "c")
