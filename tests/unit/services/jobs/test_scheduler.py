import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from sdapi.errors import QueueFull, ShuttingDown
from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import Task, TaskRegistry


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


def test_jobs_that_are_being_made_count_against_the_limit(tasks: TaskRegistry):
    scheduler = Scheduler(2)
    queued(tasks, scheduler, "a")
    with ExitStack() as made:
        for _ in range(5):
            made.enter_context(scheduler.place(tasks.create("txt2img")))
        with pytest.raises(QueueFull), scheduler.place(tasks.create("txt2img")):
            pass
    with scheduler.place(tasks.create("txt2img")):
        queued(tasks, scheduler, "b")
    with pytest.raises(QueueFull, match="2 jobs are waiting"):
        made.enter_context(scheduler.place(tasks.create("txt2img")))
    scheduler.close(ShuttingDown("the server is shutting down"))
    with pytest.raises(ShuttingDown), scheduler.place(tasks.create("txt2img")):
        pass


def test_a_task_whose_pictures_wait_to_be_enlarged_while_it_is_made_counts_once(
    tasks: TaskRegistry,
):
    scheduler = Scheduler(4)
    with ExitStack() as made:
        for _ in range(3):
            task = tasks.create("img2img")
            made.enter_context(scheduler.place(task))
            for _ in range(2):
                scheduler.put(tasks.create_inner(task, counts=False))
        made.enter_context(scheduler.place(tasks.create("img2img")))
        queued(tasks, scheduler, "a")
        with pytest.raises(QueueFull, match="5 jobs are waiting or being made"):
            made.enter_context(scheduler.place(tasks.create("img2img")))


def test_a_task_that_waits_for_a_model_leaves_its_place_to_others(tasks: TaskRegistry):
    scheduler = Scheduler(1)
    other = tasks.create("txt2img")
    with ExitStack() as made:
        for _ in range(5):
            task = tasks.create("txt2img")
            made.enter_context(scheduler.place(task))
        with pytest.raises(QueueFull), scheduler.place(other):
            pass
        with scheduler.aside(task), scheduler.place(other):
            pass
        with pytest.raises(QueueFull), scheduler.place(other):
            pass


def test_as_many_tasks_wait_for_models_as_may_wait_for_a_device(tasks: TaskRegistry):
    scheduler = Scheduler(1)
    one, two, begun = (tasks.create("txt2img", name) for name in ("one", "two", "begun"))
    tasks.begin(begun)
    with scheduler.place(one), scheduler.place(two), scheduler.aside(one):
        with pytest.raises(QueueFull, match="1 jobs wait for models"), scheduler.aside(two):
            pass
        with scheduler.aside(begun):
            pass


def test_who_comes_back_with_a_model_to_a_full_queue_is_refused(tasks: TaskRegistry):
    scheduler = Scheduler(1)
    late = tasks.create("txt2img")
    with scheduler.place(late), pytest.raises(QueueFull), scheduler.aside(late):
        queued(tasks, scheduler, "a")
    taken(scheduler)
    with scheduler.place(late), scheduler.aside(late):
        pass
    queued(tasks, scheduler, "b")


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
