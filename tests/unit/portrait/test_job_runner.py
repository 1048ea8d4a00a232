import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sdapi.errors import QueueFull, ShuttingDown
from sdapi.portrait import faults
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.handlers import Trained
from sdapi.portrait.job_runner import MAX_ATTEMPTS, JobRunner
from sdapi.portrait.state.records import Job, JobState, NewJob, Outcome
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.state.store import StateUnavailable
from sdapi.portrait.wire.requests import TrainRequest

pytestmark = pytest.mark.anyio

REQUEST = TrainRequest(("http://a/0.jpg",), is_scene=True, scene_prompts=("p",))
JOB = NewJob("app:1", "m", REQUEST.to_json())


class FakeTrainer:
    """Does what a test wants instead of training."""

    def __init__(self, does: Callable[[], Awaitable[Trained]]) -> None:
        self.does = does
        self.asked: list[tuple[str, str, TrainRequest]] = []

    async def can_train(self, *, is_xl: bool) -> bool:
        return True

    async def train(self, owner: str, model_id: str, request: TrainRequest) -> Trained:
        self.asked.append((owner, model_id, request))
        return await self.does()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlitePortraitStore]:
    opened = SqlitePortraitStore(tmp_path / "sdapi.db")
    await opened.open()
    yield opened
    await opened.close()


def made(
    store: SqlitePortraitStore, trainer: FakeTrainer, forgotten: list[tuple[str, str]] | None = None
) -> JobRunner:
    """A runner that looks after its lease often; deleted models go to `forgotten`."""

    async def forget(owner: str, model_id: str) -> None:
        if forgotten is not None:
            forgotten.append((owner, model_id))

    return JobRunner(store, trainer, forget, is_corrected=False, renew_s=0.02)


async def run(
    store: SqlitePortraitStore, does: Callable[[], Awaitable[Trained]]
) -> tuple[Job, FakeTrainer]:
    """Put a job into the store and wait for its end."""
    trainer = FakeTrainer(does)
    runner = made(store, trainer)
    runner.start()
    job: Job | None = await store.add_job(JOB)
    runner.wake()
    async with asyncio.timeout(10):
        while job is not None and job.state < JobState.SUCCEEDED:
            await asyncio.sleep(0.01)
            job = await store.job("app:1", job.id)
    await runner.close()
    assert job is not None
    return job, trainer


async def test_a_job_is_trained_and_its_model_published(store: SqlitePortraitStore):
    async def train() -> Trained:
        return Trained({"base": "sd15"}, [{"code": 1}])

    job, trainer = await run(store, train)
    assert (job.state, job.message) == (JobState.SUCCEEDED, "success")
    result = json.loads(job.result)
    assert (result["states"], result["model_id"]) == ([{"code": 1}], "m")
    assert trainer.asked == [("app:1", "m", REQUEST)]
    assert await store.model("app:1", "m") is not None


async def test_what_an_end_is_told_from_is_kept_until_it_is_written_down(
    store: SqlitePortraitStore, monkeypatch: pytest.MonkeyPatch
):
    order: list[str] = []
    finish = store.finish_job

    async def finish_late(*arguments: Any) -> bool:
        order.append("finish")
        if order == ["finish"]:
            raise StateUnavailable("not now")
        return await finish(*arguments)

    async def settle() -> None:
        order.append("settle")

    async def train() -> Trained:
        return Trained({"base": "sd15"}, settle=settle)

    monkeypatch.setattr(store, "finish_job", finish_late)
    monkeypatch.setattr("sdapi.portrait.job_runner._RETRY_S", 0.01)
    job, _ = await run(store, train)
    assert job.state is JobState.SUCCEEDED
    assert order == ["finish", "finish", "settle"]


async def test_the_end_of_a_job_that_another_server_holds_is_left_to_that(
    store: SqlitePortraitStore,
):
    settled: list[None] = []

    async def settle() -> None:
        settled.append(None)

    async def train() -> Trained:
        # The lease has run out, and another has begun with the job.
        await store.release_job(1, runner.holder)
        await store.claim_job("another", 60)
        ended.set()
        return Trained({"base": "sd15"}, settle=settle)

    ended = asyncio.Event()
    runner = made(store, FakeTrainer(train))
    runner.start()
    await store.add_job(JOB)
    runner.wake()
    async with asyncio.timeout(10):
        await ended.wait()
    await runner.close()
    job = await store.job("app:1", 1)
    assert job is not None
    assert (job.state, settled) == (JobState.RUNNING, [])


async def test_a_fault_is_the_jobs_message(store: SqlitePortraitStore):
    async def train() -> Trained:
        raise PortraitError(faults.IMAGES_UNUSABLE)

    job, _ = await run(store, train)
    assert (job.state, job.message) == (JobState.FAILED, "Image process error")


async def test_a_defect_is_told_as_missing_weights(store: SqlitePortraitStore):
    async def train() -> Trained:
        raise ZeroDivisionError

    job, _ = await run(store, train)
    assert (job.state, job.message) == (JobState.FAILED, "Training - Not get lora weight")


async def test_a_job_that_ends_its_server_again_and_again_is_given_up(
    store: SqlitePortraitStore,
):
    job = await store.add_job(JOB)
    for _ in range(MAX_ATTEMPTS):
        await store.claim_job("dead", -1)

    async def train() -> Trained:
        raise AssertionError("not again")

    runner = made(store, FakeTrainer(train))
    runner.start()
    async with asyncio.timeout(10):
        while (found := await store.job("app:1", job.id)) and found.state is JobState.RUNNING:
            await asyncio.sleep(0.01)
    await runner.close()
    assert found is not None
    assert found.state is JobState.FAILED


async def eventually(is_true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await is_true():
            await asyncio.sleep(0.01)


async def test_what_passes_costs_a_job_nothing(
    store: SqlitePortraitStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.portrait.job_runner._POLL_S", 0.01)
    tries: list[None] = []

    async def train() -> Trained:
        tries.append(None)
        if len(tries) <= MAX_ATTEMPTS + 1:
            raise QueueFull("too many trainings wait")
        return Trained({"base": "sd15"})

    job, _ = await run(store, train)
    assert job.state is JobState.SUCCEEDED
    assert job.attempts == 1


async def test_a_server_that_stops_gives_its_job_back_uncounted(store: SqlitePortraitStore):
    ended = asyncio.Event()

    async def train() -> Trained:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        raise AssertionError

    job = await store.add_job(JOB)
    for _ in range(MAX_ATTEMPTS + 2):  # more restarts than crashes are allowed
        trainer = FakeTrainer(train)
        runner = made(store, trainer)
        runner.start()
        await eventually(lambda t=trainer: _is_asked(t))
        await runner.close()
        assert ended.is_set()
    claimed = await store.claim_job("next", 60)
    assert claimed is not None
    assert (claimed.id, claimed.attempts) == (job.id, 1)


async def _is_asked(trainer: FakeTrainer) -> bool:
    return bool(trainer.asked)


async def test_a_server_that_shuts_down_under_a_job_gives_it_back_at_once(
    store: SqlitePortraitStore,
):
    async def train() -> Trained:
        raise ShuttingDown("the server is shutting down")

    await store.add_job(JOB)
    trainer = FakeTrainer(train)
    runner = made(store, trainer)
    runner.start()
    await eventually(lambda: _is_asked(trainer))
    await eventually(lambda: _is_claimable(store))
    await runner.close()
    assert len(trainer.asked) == 1


async def _is_claimable(store: SqlitePortraitStore) -> bool:
    return await store.claim_job("next", 60) is not None


class Blinking(SqlitePortraitStore):
    """A store that is away for the first calls of some kinds."""

    away: dict[str, int]

    async def renew_job(self, job_id: int, holder: str, lease_s: float) -> bool:
        self._blink("renew")
        return await super().renew_job(job_id, holder, lease_s)

    async def finish_job(self, job_id: int, holder: str, outcome: Outcome) -> bool:
        self._blink("finish")
        return await super().finish_job(job_id, holder, outcome)

    def _blink(self, what: str) -> None:
        if self.away.get(what, 0) > 0:
            self.away[what] -= 1
            raise StateUnavailable("away")


async def test_a_store_that_blinks_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.portrait.job_runner._RETRY_S", 0.01)
    store = Blinking(tmp_path / "sdapi.db")
    store.away = {"renew": 3, "finish": 3}
    await store.open()

    async def train() -> Trained:
        while store.away["renew"]:
            await asyncio.sleep(0.01)
        return Trained({"base": "sd15"})

    job, trainer = await run(store, train)
    await store.close()
    assert job.state is JobState.SUCCEEDED
    assert len(trainer.asked) == 1
    assert store.away == {"renew": 0, "finish": 0}


async def test_a_lease_that_cannot_be_renewed_ends_the_work_uncounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.portrait.job_runner.LEASE_S", -1.0)
    monkeypatch.setattr("sdapi.portrait.job_runner._POLL_S", 0.01)
    store = Blinking(tmp_path / "sdapi.db")
    store.away = {"renew": 2}
    await store.open()

    async def train() -> Trained:
        if store.away["renew"]:
            await asyncio.sleep(60)
        return Trained({"base": "sd15"})

    job, trainer = await run(store, train)
    await store.close()
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
    assert len(trainer.asked) == 3


@pytest.mark.parametrize("is_late", [False, True])
async def test_files_of_a_model_that_is_deleted_while_it_is_trained_go(
    store: SqlitePortraitStore, is_late: bool
):
    async def train() -> Trained:
        await store.delete_model("app:1", "m")
        if not is_late:
            await asyncio.sleep(60)
        return Trained({"base": "sd15"})

    forgotten: list[tuple[str, str]] = []
    runner = made(store, FakeTrainer(train), forgotten)
    await store.add_job(JOB)
    runner.start()
    async with asyncio.timeout(20):
        while not forgotten:
            await asyncio.sleep(0.01)
    await runner.close()
    assert forgotten == [("app:1", "m")]
    assert await store.model("app:1", "m") is None


async def test_a_job_that_another_server_has_taken_over_keeps_its_files(
    store: SqlitePortraitStore,
):
    ended = asyncio.Event()

    async def train() -> Trained:
        await store.renew_job(job.id, runner.holder, -1)
        assert await store.claim_job("there", 60) is not None
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        raise AssertionError

    forgotten: list[tuple[str, str]] = []
    runner = made(store, FakeTrainer(train), forgotten)
    job = await store.add_job(JOB)
    runner.start()
    await asyncio.wait_for(ended.wait(), 20)
    await runner.close()
    assert forgotten == []
    held = await store.job("app:1", job.id)
    assert held is not None
    assert held.attempts == 2


class Broken(SqlitePortraitStore):
    """A store with a defect that the first claims meet."""

    left = 3

    async def claim_job(self, holder: str, lease_s: float) -> Job | None:
        if self.left:
            self.left -= 1
            raise ValueError("a defect")
        return await super().claim_job(holder, lease_s)


async def test_an_unforeseen_error_is_logged_and_ends_no_later_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("sdapi.portrait.job_runner._POLL_S", 0.01)
    store = Broken(tmp_path / "sdapi.db")
    await store.open()

    async def train() -> Trained:
        return Trained({"base": "sd15"})

    job, _ = await run(store, train)
    await store.close()
    assert job.state is JobState.SUCCEEDED
    assert caplog.text.count("ValueError: a defect") == 3


async def test_a_job_that_cannot_be_read_fails_by_itself(
    store: SqlitePortraitStore, tmp_path: Path
):
    broken = await store.add_job(JOB)
    db = sqlite3.connect(tmp_path / "sdapi.db")
    with closing(db), db:
        db.execute("UPDATE portrait_jobs SET request = '{\"urls\"' WHERE id = ?", (broken.id,))

    async def train() -> Trained:
        return Trained({"base": "sd15"})

    job, trainer = await run(store, train)
    assert job.state is JobState.SUCCEEDED
    assert len(trainer.asked) == 1
    failed = await store.job("app:1", broken.id)
    assert failed is not None
    assert (failed.state, failed.attempts) == (JobState.FAILED, 1)
    assert failed.message == "Training - Not get lora weight"


async def test_closing_ends_a_runner_whose_store_has_a_defect(tmp_path: Path):
    """While it gives its job back, too: the error must not be taken for another try."""

    class Defect(SqlitePortraitStore):
        async def release_job(self, job_id: int, holder: str) -> bool:
            raise ValueError("a defect")

    async def train() -> Trained:
        await asyncio.sleep(60)
        raise AssertionError

    defect = Defect(tmp_path / "sdapi.db")
    await defect.open()
    await defect.add_job(JOB)
    trainer = FakeTrainer(train)
    runner = made(defect, trainer)
    runner.start()
    await eventually(lambda: _is_asked(trainer))
    await asyncio.wait_for(runner.close(), 10)
    await defect.close()
