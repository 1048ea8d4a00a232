import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sdapi.portrait import faults
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.handlers import Trained
from sdapi.portrait.job_runner import MAX_ATTEMPTS, JobRunner
from sdapi.portrait.records import Job, JobState, NewJob
from sdapi.portrait.requests import TrainRequest
from sdapi.portrait.sqlite_store import SqlitePortraitStore

pytestmark = pytest.mark.anyio

REQUEST = TrainRequest(("http://a/0.jpg",), is_scene=True, scene_prompts=("p",))
JOB = NewJob("app:1", "m", REQUEST.to_json())


class FakeTrainer:
    """Does what a test wants instead of training."""

    def __init__(self, does: Callable[[], Awaitable[Trained]]) -> None:
        self.does = does
        self.asked: list[tuple[str, str, TrainRequest]] = []

    def can_train(self, request: TrainRequest) -> bool:
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


async def run(
    store: SqlitePortraitStore, does: Callable[[], Awaitable[Trained]]
) -> tuple[Job, FakeTrainer]:
    """Put a job into the store and wait for its end."""
    trainer = FakeTrainer(does)
    runner = JobRunner(store, trainer, is_corrected=False)
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

    runner = JobRunner(store, FakeTrainer(train), is_corrected=False)
    runner.start()
    async with asyncio.timeout(10):
        while (found := await store.job("app:1", job.id)) and found.state is JobState.RUNNING:
            await asyncio.sleep(0.01)
    await runner.close()
    assert found is not None
    assert found.state is JobState.FAILED
