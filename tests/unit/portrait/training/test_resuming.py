"""Trainings that were interrupted, and what is made of them later."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sdapi.errors import ShuttingDown
from sdapi.portrait.faces.processes import FaceProcesses
from sdapi.portrait.models.artefacts import Artefacts, ModelMeta
from sdapi.portrait.models.folders import ModelFolders
from tests.photo_server import PhotoServer, photo_server
from tests.portraits.people import PERSON
from tests.portraits.portrait_training import PortraitEngine, trainer_bench

pytestmark = pytest.mark.anyio


async def test_a_server_that_stops_goes_on_later_without_fetching_anew(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine(update_s=0.05)
    async with trainer_bench(tmp_path, engine, processes) as bench:
        running = asyncio.create_task(
            bench.train(photos.of("person_3"), max_train_steps=400, steps_between_evaluations=200)
        )
        async with asyncio.timeout(200):
            while not (engine.trainings and engine.trainings[0].monitor.step > 2):
                await asyncio.sleep(0.02)
        await bench.services.drain()
        with pytest.raises(ShuttingDown):
            await running
        assert engine.trainings[0].was_suspended
        assert bench.tools.folders.work("queue", "anna").is_dir()
    fetched = photos.asked.count("person_3")
    async with trainer_bench(tmp_path, PortraitEngine(), processes) as bench:
        await bench.train(photos.of("person_3"), max_train_steps=400, steps_between_evaluations=200)
        assert Artefacts(bench.folder).meta().steps == 400
    assert photos.asked.count("person_3") == fetched


@pytest.mark.parametrize("is_published", [True, False])
async def test_a_server_that_stops_before_the_end_is_written_down_loses_nothing(
    tmp_path: Path, processes: FaceProcesses, monkeypatch: pytest.MonkeyPatch, is_published: bool
):
    engine, publish = PortraitEngine(), ModelFolders.publish
    told: list[Any] = []
    with photo_server() as photos:
        urls = photos.of(*PERSON[:2], "missing")

        def stop(folders: ModelFolders, draft: Path, owner: str, model_id: str) -> None:
            if is_published:
                publish(folders, draft, owner, model_id)
            told.append(
                Artefacts(draft if not is_published else folders.of(owner, model_id)).meta()
            )
            loop.call_soon_threadsafe(running.cancel)

        async with trainer_bench(tmp_path, engine, processes) as bench:
            loop = asyncio.get_running_loop()
            with monkeypatch.context() as patch:
                patch.setattr(ModelFolders, "publish", stop)
                running = asyncio.create_task(bench.train_unsettled(urls))
                with pytest.raises(asyncio.CancelledError):
                    await running
    # The photos' addresses have expired, and the checkpoint is another by now.
    for file in (tmp_path / "models" / "Stable-diffusion").glob("*.safetensors"):
        os.utime(file, (1, 1))
    async with trainer_bench(tmp_path, engine, processes) as bench:
        for _ in range(2):  # nobody has settled the first answer
            trained = await bench.train_unsettled(urls)
            assert [state["code"] for state in trained.states] == [1, 1, 2]
            assert Artefacts(bench.folder).meta() == told[0]
            assert trained.about == told[0].to_json() | {"scores": trained.about["scores"]}
            assert Artefacts(bench.folder).lora.is_file()
        work = bench.tools.folders.work("queue", "anna")
        assert work.is_dir()
        await trained.settle()
        assert not work.exists()
    assert len(engine.trainings) == 1


async def test_what_was_made_is_no_answer_to_another_request_or_once_it_is_deleted(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine()
    async with trainer_bench(tmp_path, engine, processes) as bench:
        await bench.train_unsettled(photos.of("person_0"))
        await bench.train_unsettled(photos.of("person_1"))
        assert len(engine.trainings) == 2
        shutil.rmtree(bench.folder)
        await bench.train_unsettled(photos.of("person_1"))
        assert len(engine.trainings) == 3
        assert Artefacts(bench.folder).meta()


async def test_an_end_that_is_settled_late_leaves_a_later_training_alone(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine(update_s=0.02)
    async with trainer_bench(tmp_path, engine, processes) as bench:
        first = await bench.train_unsettled(photos.of("person_0"))
        running = asyncio.create_task(bench.train_unsettled(photos.of("person_1")))
        async with asyncio.timeout(200):
            while not (len(engine.trainings) > 1 and engine.trainings[1].monitor.step > 2):
                await asyncio.sleep(0.02)
            await first.settle()
            assert not running.done()
            second = await running
        await first.settle()
        work = bench.tools.folders.work("queue", "anna")
        assert work.is_dir()
        await second.settle()
        assert not work.exists()
    assert Artefacts(bench.folder).hold(ModelMeta.from_json(second.about))


async def test_whoever_comes_after_a_cancelled_request_goes_on(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine(update_s=0.05)
    asked = {"max_train_steps": 20, "steps_between_evaluations": 10}
    async with trainer_bench(tmp_path, engine, processes) as bench:
        running = asyncio.create_task(bench.train(photos.of("person_4"), **asked))
        async with asyncio.timeout(200):
            while not (engine.trainings and engine.trainings[0].monitor.step > 2):
                await asyncio.sleep(0.02)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            # At once: the update that was being made may not have ended.
            await bench.train(photos.of("person_4"), **asked)
        assert engine.trainings[0].was_suspended
        assert Artefacts(bench.folder).meta().steps == 20
    assert photos.asked.count("person_4") == 1


@pytest.mark.parametrize(
    "told",
    [
        {"learning_rate": 0.5, "train_convolutions": True},
        {"learning_rate": 5e-4, "train_convolutions": False},
    ],
)
async def test_a_training_made_otherwise_begins_anew_with_trials_of_its_own(
    tmp_path: Path,
    photos: PhotoServer,
    processes: FaceProcesses,
    monkeypatch: pytest.MonkeyPatch,
    told: dict[str, object],
):
    engine = PortraitEngine(update_s=0.05)
    asked = {"max_train_steps": 20, "steps_between_evaluations": 5}
    async with trainer_bench(tmp_path, engine, processes) as bench:
        trials = bench.tools.folders.work("queue", "anna") / "trials"
        running = asyncio.create_task(bench.train(photos.of("person_4"), **asked))
        async with asyncio.timeout(200):
            while not list(trials.glob("5_*.png")):
                await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        monkeypatch.setattr("sdapi.portrait.base.checkpoints._own", lambda path: told)
        before = len(engine.jobs)
        await bench.train(photos.of("person_4"), **asked)
    first, second = (training.job for training in engine.trainings)
    assert (first.learning_rate, first.shape.has_convolutions) == (5e-4, True)  # the demo's own
    made = {
        "learning_rate": second.learning_rate,
        "train_convolutions": second.shape.has_convolutions,
    }
    assert made == told
    drawn = [job for job in engine.jobs[before:] if job.init is not None]
    assert len(drawn) == 16  # four templates, four checkpoints
