"""When a worker trains; a fake engine's updates and jobs take as long as a test says."""

from dataclasses import replace
from pathlib import Path

import pytest

from sdapi.engine.training.job import TrainingJob, TrainingPicture
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import Conflict, OutOfMemory, QueueFull, ShuttingDown, TaskCancelled
from sdapi.services.jobs.tasks import State
from sdapi.services.jobs.training import Training, TrainingLine
from sdapi.services.jobs.training_turns import TrainingTurns
from tests.fakes import FakeEngine, FakeTraining


class Clock:
    """Time that passes when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedTraining(FakeTraining):
    """A training whose updates take time of a clock."""

    clock: Clock

    def update(self, *, while_drawing: bool = False) -> None:
        self.clock.now += self.update_s
        real, self.update_s = self.update_s, 0.0
        super().update(while_drawing=while_drawing)
        self.update_s = self.monitor.update_s = real


class Bench:
    """The turns of one worker with an engine of their own."""

    def __init__(self, share: float, update_s: float) -> None:
        self.clock, self.engine, self.line = Clock(), FakeEngine(), TrainingLine(20)
        self.turns = TrainingTurns(self.line, share, self.clock)
        self._update_s = update_s
        self.engine.begin_training = self._begin  # type: ignore[method-assign]

    def _begin(self, job, monitor):
        training = TimedTraining(job, monitor, self._update_s, self.engine.training_failure)
        training.clock = self.clock
        self.engine.trainings.append(training)
        return training

    def put(self, name: str = "a", steps: int = 100_000) -> Training:
        training = Training(lesson(name, steps))
        self.line.put(training)
        return training

    def draw(self, steps: int, step_s: float) -> None:
        """One job: its steps, each of which training may follow."""
        for _ in range(steps):
            self.clock.now += step_s
            self.turns.earn(step_s)
            self.turns.take_between_steps()

    def idle(self, turns: int) -> None:
        for _ in range(turns):
            if self.turns.is_due(others_wait=False):
                self.turns.take(self.engine)


def lesson(name: str = "a", steps: int = 100_000) -> TrainingJob:
    picture = TrainingPicture(Path("0.jpg"), "a person")
    file = ModelFile(Path("a.safetensors"))
    return TrainingJob(name, file, (picture,), Path("a"), 64, steps, 10)


def test_an_idle_worker_only_trains():
    bench = Bench(0.25, 1.0)
    training = bench.put(steps=5)
    bench.idle(6)
    assert training.state is State.DONE
    assert training.future.result(0).checkpoints[-1][0] == 5


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("update_s", [0.3, 5.0])
def test_training_gets_its_share_while_jobs_follow_each_other(share: float, update_s: float):
    bench = Bench(share, update_s)
    bench.put()
    bench.idle(2)
    begun = bench.clock.now
    first = len(bench.engine.trainings[0].updates)
    for _ in range(200):
        bench.draw(steps=20, step_s=0.5)
        if bench.turns.is_due(others_wait=True):
            bench.turns.take(bench.engine)
    trained = (len(bench.engine.trainings[0].updates) - first) * update_s
    assert trained / (bench.clock.now - begun) == pytest.approx(
        min(share, update_s / (update_s + 0.5)), rel=0.05
    )


def test_between_two_steps_of_a_job_there_is_at_most_one_update():
    bench = Bench(0.9, 0.1)
    bench.put()
    bench.idle(2)
    bench.draw(steps=50, step_s=2.0)
    assert len(bench.engine.trainings[0].updates) == 51
    assert bench.engine.trainings[0].updates[1:] == [True] * 50


def test_a_training_that_would_have_to_load_waits_until_the_job_is_over():
    bench = Bench(0.5, 0.1)
    bench.put()
    bench.idle(2)
    bench.engine.trainings[0].is_at_hand = False
    bench.draw(steps=20, step_s=1.0)
    assert len(bench.engine.trainings[0].updates) == 1
    assert bench.turns.is_due(others_wait=True)
    bench.turns.take(bench.engine)
    assert bench.engine.trainings[0].updates == [False, False]


def test_a_training_begins_though_jobs_wait():
    bench = Bench(0.25, 1.0)
    bench.put()
    assert bench.turns.is_due(others_wait=True)


def test_trainings_run_one_after_the_other():
    bench = Bench(0.25, 0.1)
    trainings = [bench.put(f"t{i}", steps=3) for i in range(20)]
    assert [each.id for each in bench.line.open] == [f"t{i}" for i in range(20)]
    with pytest.raises(QueueFull, match="20 trainings"):
        bench.put("one more")
    bench.idle(20 * 4)
    assert [each.state for each in trainings] == [State.DONE] * 20
    assert all(each.is_closed for each in bench.engine.trainings)


def test_an_id_is_trained_once_at_a_time():
    bench = Bench(0.25, 0.1)
    bench.put("a")
    with pytest.raises(Conflict, match="'a' waits or runs"):
        bench.put("a")


def test_a_waiting_training_is_cancelled_at_once():
    bench = Bench(0.25, 0.1)
    training = bench.put()
    bench.line.cancel(training)
    assert training.state is State.CANCELLED
    with pytest.raises(TaskCancelled):
        training.future.result(0)
    assert not bench.turns.is_wanted


def test_a_running_training_is_cancelled_before_its_next_update():
    bench = Bench(0.25, 1.0)
    training = bench.put()
    bench.idle(3)
    bench.line.cancel(training)
    assert bench.turns.is_due(others_wait=True)
    bench.turns.take(bench.engine)
    with pytest.raises(TaskCancelled):
        training.future.result(0)
    run = bench.engine.trainings[0]
    assert (len(run.updates), run.was_suspended, run.is_closed) == (2, True, True)


@pytest.fixture
def failing() -> Bench:
    bench = Bench(0.25, 0.1)
    bench.engine.training_failure = lambda step: OutOfMemory("out of memory") if step == 3 else None
    return bench


def test_a_training_that_fails_costs_no_other(failing: Bench):
    first, second = failing.put("a"), failing.put("b", steps=2)
    failing.idle(10)
    with pytest.raises(OutOfMemory):
        first.future.result(0)
    assert (first.state, second.state) == (State.FAILED, State.DONE)
    assert failing.engine.trainings[0].is_closed


def test_a_stopping_worker_leaves_what_can_be_resumed():
    bench = Bench(0.25, 0.1)
    running, waiting = bench.put("a"), bench.put("b")
    bench.idle(3)
    bench.line.close(ShuttingDown("the server is shutting down"))
    bench.turns.stop()
    for training in (running, waiting):
        with pytest.raises(ShuttingDown):
            training.future.result(0)
    assert bench.engine.trainings[0].was_suspended
    with pytest.raises(ShuttingDown):
        bench.put("c")


@pytest.mark.parametrize("what", ["suspend", "close"])
def test_a_device_that_fails_while_a_training_ends_costs_no_other(what: str):
    bench = Bench(0.25, 0.1)
    first, second = bench.put("a"), bench.put("b", steps=2)
    bench.idle(3)

    def refuse() -> None:
        raise RuntimeError("the device is gone")

    setattr(bench.engine.trainings[0], what, refuse)
    bench.line.cancel(first)
    bench.idle(10)
    with pytest.raises(TaskCancelled):
        first.future.result(0)
    assert second.state is State.DONE


def test_an_outcome_that_nobody_waits_for_costs_no_other():
    bench = Bench(0.25, 0.1)
    first, second = bench.put("a", steps=2), bench.put("b", steps=2)
    first.future.cancel()
    bench.idle(20)
    assert second.state is State.DONE


def test_jobs_are_values():
    assert lesson() == lesson()
    assert replace(lesson(), seed=1) != lesson()
