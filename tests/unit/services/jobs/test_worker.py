import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from sdapi.engine.jobs.job import Job, ModelFile, Result
from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.errors import ModelUnusable, OutOfMemory
from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import State, Task, TaskRegistry
from sdapi.services.jobs.training import TrainingLine
from sdapi.services.jobs.training_turns import TrainingTurns
from sdapi.services.jobs.worker import ServingEngines, Worker
from sdapi.settings import Settings
from tests.fakes import FakeEngine, colour_of
from tests.servers import wait_ready

FILE = ModelFile(Path("a.safetensors"))


def job(seed: int = 1) -> Job:
    return Job(
        id="a",
        prompts=("",),
        negative_prompts=("",),
        seeds=(seed,),
        subseeds=(0,),
        checkpoint=FILE,
        sampler=find_sampler("Euler"),
        scheduler="Automatic",
        steps=1,
        cfg_scale=1,
        width=8,
        height=8,
    )


class Bench:
    """One worker with its scheduler."""

    def __init__(self) -> None:
        self.tasks, self.scheduler, self.engine = TaskRegistry(), Scheduler(10), FakeEngine()
        self.trainings = TrainingLine(10)
        self.workers: list[Worker] = []
        self._futures: dict[str, Future[Result]] = {}

    def start(
        self,
        make: Callable[[], FakeEngine] | None = None,
        first: Callable[[], ModelFile | None] = lambda: None,
    ) -> Worker:
        made = make or (lambda: self.engine)
        turns = TrainingTurns(self.trainings, share=0.25)
        worker = Worker("fake", self.scheduler, self.tasks, turns, made, first)
        self.workers.append(worker)
        worker.start()
        return worker

    def put(self, **changes: Any) -> Task:
        task = self.tasks.create("txt2img")
        task.job = job(**changes)
        assert task.future is not None
        self._futures[task.id] = task.future
        self.scheduler.put(task)
        return task

    def result(self, task: Task) -> Result:
        return self._futures[task.id].result(5)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for worker in made.workers:
        worker.stop()
        worker.join(5)


def test_job_is_run_and_its_result_delivered(bench: Bench):
    worker = bench.start()
    task = bench.put(seed=0x010203)
    (image,) = bench.result(task).images
    assert image.image.getpixel((0, 0)) == colour_of(0x010203)
    assert worker.is_ready


@pytest.mark.parametrize("error", [OutOfMemory("full"), ZeroDivisionError("oh")])
def test_failing_job_costs_no_other(bench: Bench, error: Exception):
    bench.engine.failure = lambda job: error if job.seeds == (13,) else None
    bench.start()
    made = [bench.put(seed=seed) for seed in (1, 13, 2)]
    with pytest.raises(type(error)):
        bench.result(made[1])
    assert [bench.result(t).images[0].index for t in (made[0], made[2])] == [0, 0]
    assert [t.state for t in made] == [State.DONE, State.FAILED, State.DONE]


def test_cancelled_job_is_not_run(bench: Bench):
    first, second = bench.put(seed=1), bench.put(seed=2)
    bench.tasks.cancel(first)
    bench.start()
    bench.result(second)
    assert [j.seeds for j in bench.engine.jobs] == [(2,)]


def test_first_checkpoint_is_loaded_before_the_first_job(bench: Bench):
    worker = bench.start(first=lambda: FILE)
    wait_ready(lambda: worker.is_ready, 5)
    assert bench.engine.loaded == [FILE]


@pytest.mark.parametrize("error", [ModelUnusable("broken"), MemoryError("full"), KeyError("x")])
def test_first_checkpoint_that_cannot_be_loaded_does_not_stop_the_worker(bench: Bench, error: Any):
    bench.engine.load_failure = error
    worker = bench.start(first=lambda: FILE)
    wait_ready(lambda: worker.is_ready, 5)
    assert worker.load_fault is not None
    assert worker.load_fault.file == FILE
    assert worker.load_fault.is_of_file == isinstance(error, ModelUnusable)
    bench.engine.load_failure = None
    assert bench.result(bench.put()).images
    assert worker.load_fault is None


def test_a_checkpoint_that_was_mended_is_loaded_without_a_restart(bench: Bench, tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"half")
    bench.engine.load_failure = ModelUnusable("a.safetensors: it is cut off")
    worker = bench.start(first=lambda: ModelFile.of(path))
    wait_ready(lambda: worker.load_fault is not None, 5)
    bench.engine.load_failure = None
    path.write_bytes(b"the whole file")
    wait_ready(lambda: worker.load_fault is None, 10)
    assert bench.engine.loaded == [ModelFile.of(path)]


def test_a_first_checkpoint_that_comes_later_is_loaded_then(bench: Bench):
    there: list[ModelFile] = []
    worker = bench.start(first=lambda: there[0] if there else None)
    wait_ready(lambda: worker.is_ready, 5)
    assert bench.engine.loaded == []
    there.append(FILE)
    wait_ready(lambda: bench.engine.loaded == [FILE], 5)


def test_worker_without_an_engine_is_not_ready_and_says_why(bench: Bench):
    def fail() -> FakeEngine:
        raise RuntimeError("no device")

    worker = bench.start(fail)
    wait_ready(lambda: worker.failure is not None, 5)
    assert not worker.is_ready
    assert str(worker.failure) == "no device"


def test_models_are_cleared_between_jobs_when_asked(bench: Bench):
    worker = bench.start()
    worker.request_clear()
    wait_ready(lambda: bench.engine.clears == 1, 5)


def test_stopped_worker_ends_after_its_job(bench: Bench):
    bench.engine.delay_s = 0.2
    worker = bench.start()
    task, waiting = bench.put(seed=1), bench.put(seed=2)
    assert bench.engine.is_running.wait(5)
    worker.stop()
    worker.join(5)
    assert task.state is State.DONE
    assert waiting.state is State.QUEUED


def test_a_server_of_its_own_collects_no_garbage_among_what_it_has_imported(tmp_path: Path):
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    found: list[int] = []

    def make() -> None:
        ServingEngines().make(Settings(data_dir=tmp_path, use_cpu=("all",)), "cpu")
        found.append(gc.get_freeze_count())
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=make)
    try:
        thread.start()
        thread.join(60)
    finally:
        gc.unfreeze()
    assert found[0] > 10_000
    assert found[1] == before + 5
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
