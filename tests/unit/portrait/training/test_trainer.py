import asyncio
import errno
import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from sdapi.engine.jobs.job import Job
from sdapi.errors import OutOfMemory, SDAPIError
from sdapi.portrait.faces.processes import FaceProcesses
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.models.artefacts import Artefacts
from sdapi.services.catalog.catalog import DEMO_CHECKPOINT
from sdapi.services.catalog.model_files.safetensors_header import read_metadata
from tests.photo_server import PhotoServer
from tests.portraits.people import PERSON
from tests.portraits.portrait_training import PortraitEngine, TrainerBench, trainer_bench

pytestmark = pytest.mark.anyio

MODEL_ID = "fa4ba43a-df55-45a4-9c31-bb0dc1e5aaaa"


async def fails(bench: TrainerBench, urls: list[str], **changes: object) -> tuple[int, str]:
    with pytest.raises(PortraitError) as failed:
        await bench.train(urls, **changes)
    assert not bench.tools.folders.work("queue", "anna").exists()
    return failed.value.status, str(failed.value)


async def test_a_person_is_trained_and_published(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    # The weights of step 4 draw somebody else, those of step 8 the person.
    engine = PortraitEngine(draws=lambda step: "stranger" if step in (None, 4) else "person_2")
    async with trainer_bench(tmp_path, engine, processes) as bench:
        trained = await bench.train(photos.of(*PERSON[:3], "missing"), sex="female")
        files = Artefacts(bench.folder)
        meta = files.meta()
        listed = [lora.name for lora in bench.services.networks.loras]
    assert [state["code"] for state in trained.states] == [1, 1, 1, 2]
    assert json.loads(json.dumps(trained.about))["kind"] == "sd15"
    assert (meta.role, meta.trigger, meta.steps) == ("person", "a portrait of a person", 8)
    (job,) = (training.job for training in engine.trainings)
    assert (job.learning_rate, job.text_learning_rate) == (5e-4, 2.5e-4)  # the demo's own
    assert meta.scores[8] > meta.scores[4]
    assert set(meta.merged_steps[:2]) == {8}
    merged = load_file(files.lora)["a.alpha"]
    assert merged == pytest.approx(sum(meta.merged_steps) / len(meta.merged_steps), abs=0.01)
    assert files.face_id.is_file()
    assert files.reference.is_file()
    assert files.reference_face() is not None
    assert len(files.references()) == 2
    assert len(list((bench.folder / "original_backup").iterdir())) == 3
    crops = bench.folder / "processed_images" / "train"
    lines = (crops / "metadata.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "file_name": "0.jpg",
        "text": "a portrait of a person, a woman",
    }
    # Prompts find it by its name.
    assert listed == ["anna"]
    link = tmp_path / "models" / "Lora" / "anna.safetensors"
    assert link.resolve() == files.lora.resolve()
    assert read_metadata(link)["prompt"] == "a portrait of a person"
    assert not bench.tools.folders.work("queue", "anna").exists()


async def test_trial_pictures_are_what_the_contract_says(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine()
    async with trainer_bench(tmp_path, engine, processes) as bench:
        await bench.train(photos.of(*PERSON[:2]))
        again = len(engine.jobs)
        await bench.train(photos.of(*PERSON[:2]), max_train_steps=4)
    own = json.loads(DEMO_CHECKPOINT.with_suffix(".json").read_text())["portrait"]
    scale = float(own["cfg_scale"])
    trials = [job for job in engine.jobs[:again] if job.init is not None]
    assert len(trials) == 8  # four templates, two checkpoints
    assert {(t.steps, t.cfg_scale, t.init.denoising_strength) for t in trials} == {
        (20, scale, 0.65)
    }
    assert all("<lora:" in trial.prompts[0] for trial in trials)
    # Templates are drawn once; the second training has one checkpoint more to try.
    assert all(job.init is not None for job in engine.jobs[again:])
    assert len(engine.jobs) == again + 4


async def test_a_scene_learns_its_captions(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "sdapi.portrait.base.checkpoints.BaseModels.kind_of", lambda self, checkpoint: "xl"
    )
    engine = PortraitEngine()
    async with trainer_bench(tmp_path, engine, processes) as bench:
        trained = await bench.train(
            photos.of("person_0", "nobody", "broken"),
            owner="app:1",
            model_id=MODEL_ID,
            is_xl=True,
            is_scene=True,
            scene_prompts=("a beach", "a ball", "?"),
        )
        folder = bench.tools.folders.of("app:1", MODEL_ID)
    job = engine.trainings[0].job
    assert [picture.caption for picture in job.pictures] == ["a beach", "a ball"]
    assert (job.shape.rank, job.shape.has_text, job.checkpoints_gradients) == (32, False, True)
    assert [job.init for job in engine.jobs] == []  # no trials for SDXL
    assert trained.about["role"] == "scene"
    metadata = read_metadata(Artefacts(folder).lora)
    assert metadata["ep_lora_version"] == "scene"
    assert metadata["ep_prompt"].splitlines()[0] == "a beach"
    assert not Artefacts(folder).face_id.exists()


async def test_without_a_readable_photo_the_images_cannot_be_processed(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    async with trainer_bench(tmp_path, PortraitEngine(), processes) as bench:
        assert await fails(bench, photos.of("missing", "broken")) == (462, "Image process error")
        assert await fails(bench, photos.of("nobody")) == (462, "Image process error")


async def test_a_folder_that_cannot_be_made_is_told(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    async with trainer_bench(tmp_path, PortraitEngine(), processes) as bench:
        (tmp_path / "portrait").mkdir()
        (tmp_path / "portrait" / "trainings").write_text("a file in the way")
        assert await fails(bench, photos.of("person_0")) == (462, "Make dir in oss Error")


async def test_a_full_disk_while_photos_are_stored_is_told(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with trainer_bench(tmp_path, PortraitEngine(), processes) as bench:
        monkeypatch.setattr("sdapi.portrait.training.photos.preparation._kept", full)
        assert await fails(bench, photos.of("person_0")) == (462, "Make dir in oss Error")


async def test_a_training_that_fails_leaves_no_weights_and_the_old_model(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine()
    async with trainer_bench(tmp_path, engine, processes) as bench:
        await bench.train(photos.of("person_0"))
        before = Artefacts(bench.folder).lora.read_bytes()
        engine.training_failure = lambda step: OutOfMemory("out of memory") if step == 3 else None
        failed = await fails(bench, photos.of("person_0"))
        assert failed == (469, "Training - Not get lora weight")
        assert Artefacts(bench.folder).lora.read_bytes() == before


async def test_without_a_face_in_any_trial_there_is_no_best_picture(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine(draws=lambda step: "person_0" if step is None else "nobody")
    async with trainer_bench(tmp_path, engine, processes) as bench:
        failed = await fails(bench, photos.of("person_0"))
    assert failed == (469, "Training - Not get best template image")


async def test_a_trial_that_fails_costs_itself_only(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    class Failing(PortraitEngine):
        pass

    engine = Failing()
    engine.failure = lambda job: (
        SDAPIError("no picture")
        if any("checkpoint-4" in str(f.path) for f in job.networks.loras.values())
        else None
    )
    async with trainer_bench(tmp_path, engine, processes) as bench:
        await bench.train(photos.of("person_0"))
        meta = Artefacts(bench.folder).meta()
    assert set(meta.merged_steps) == {8}
    assert set(meta.scores) == {8}


async def test_where_the_checkpoint_draws_no_face_the_photo_is_the_template(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.portrait.training.trying.validation._TEMPLATE_TRIES", 1)
    engine = PortraitEngine(draws=lambda step: "nobody" if step is None else "person_1")
    async with trainer_bench(tmp_path, engine, processes) as bench:
        await bench.train(photos.of("person_0"))
    trials = [job for job in engine.jobs if job.init is not None]
    assert len(trials) == 2


async def test_templates_are_drawn_anew_for_other_words(
    tmp_path: Path,
    photos: PhotoServer,
    processes: FaceProcesses,
    monkeypatch: pytest.MonkeyPatch,
):
    engine = PortraitEngine()
    async with trainer_bench(tmp_path, engine, processes) as bench:
        await bench.train(photos.of("person_0"))
        monkeypatch.setattr(
            "sdapi.portrait.base.checkpoints._own",
            lambda path: {"id_photo": "a {person} in grey", "native_size": 256},
        )
        await bench.train(photos.of("person_0"))
    prompts = [job.prompts[0] for job in engine.jobs if job.init is None]
    assert [prompt.startswith("a man in grey") for prompt in prompts].count(True) == 2
    assert len(prompts) == 8


async def test_what_nobody_has_foreseen_while_it_learns_is_told_as_missing_weights(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine(
        training_failure=lambda step: ZeroDivisionError() if step == 3 else None
    )
    async with trainer_bench(tmp_path, engine, processes) as bench:
        failed = await fails(bench, photos.of("person_0"))
    assert failed == (469, "Training - Not get lora weight")


async def test_weights_that_can_no_longer_win_leave_the_disk(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.portrait.training.ranking.BEST", 2)
    engine = PortraitEngine(draws=lambda step: "person_0" if step in (None, 8) else "stranger")
    async with trainer_bench(tmp_path, engine, processes) as bench:
        await bench.train_unsettled(photos.of("person_0"), max_train_steps=12)
        weights = bench.tools.folders.work("queue", "anna") / "weights"
        assert [file.name for file in weights.glob("checkpoint-*")] == ["checkpoint-8.safetensors"]
        assert set(Artefacts(bench.folder).meta().merged_steps) == {8}


async def test_a_damaged_template_is_drawn_anew(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine()
    async with trainer_bench(tmp_path, engine, processes) as bench:
        await bench.train(photos.of("person_0"))
        kept = sorted((tmp_path / "portrait" / "templates").iterdir())
        before = kept[0].read_bytes()
        kept[0].write_bytes(b"half a pic")
        await bench.train(photos.of("person_0"))
    assert len(kept) == 4
    assert kept[0].read_bytes() == before


async def test_templates_that_fail_at_first_are_drawn_for_a_later_checkpoint(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine()
    tries: list[None] = []

    def failure(job: Job) -> SDAPIError | None:
        if job.networks.loras or job.init is not None:
            return None
        tries.append(None)
        return SDAPIError("no picture") if len(tries) <= 16 else None

    engine.failure = failure
    engine.draws = lambda step: "person_0"
    async with trainer_bench(tmp_path, engine, processes) as bench:
        # The photo cannot stand in: it shows two people.
        await bench.train(photos.of("two"))
        scores = Artefacts(bench.folder).meta().scores
    assert set(scores) == {4, 8}


async def test_a_provider_that_came_meanwhile_sees_every_crop(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine(update_s=0.05)
    asked = {"max_train_steps": 12, "steps_between_evaluations": 6}
    async with trainer_bench(tmp_path, engine, processes) as bench:
        running = asyncio.create_task(bench.train(photos.of(*PERSON[:2]), **asked))
        async with asyncio.timeout(200):
            while not engine.trainings:
                await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.wait([running])
        kept = bench.tools.folders.work("queue", "anna") / "prepared.json"
        content = json.loads(kept.read_text())
        # As another embedder would have left it.
        content["providers"]["embedder"] = "arcface 1"
        content["embeddings"] = [[1.0, 0.0]] * 2
        kept.write_text(json.dumps(content))
        await bench.train(photos.of(*PERSON[:2]), **asked)
        meta = Artefacts(bench.folder).meta()
    assert meta.providers["embedder"].startswith("dlib")
    assert set(meta.scores) == {6, 12}


@pytest.mark.slow
async def test_twenty_trainings_of_several_models_wait_for_each_other(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses
):
    engine = PortraitEngine()
    async with trainer_bench(tmp_path, engine, processes) as bench:
        urls = photos.of("person_0")
        async with asyncio.timeout(240):
            await asyncio.gather(
                *(bench.train(urls, model_id=f"user{i % 10}", max_train_steps=2) for i in range(20))
            )
        users = bench.tools.folders.root / "users"
        assert sorted(f.name for f in users.iterdir()) == [f"user{i}" for i in range(10)]
    assert len(engine.trainings) == 20


@pytest.mark.parametrize("file", ["anna.safetensors", "sub/anna.safetensors", "anna.pt"])
async def test_a_lora_of_somebody_else_is_never_replaced(
    tmp_path: Path, photos: PhotoServer, processes: FaceProcesses, file: str
):
    folder = tmp_path / "models" / "Lora"
    other = folder / file
    other.parent.mkdir(parents=True)
    other.write_bytes(b"somebody else's")
    async with trainer_bench(tmp_path, PortraitEngine(), processes) as bench:
        await bench.train(photos.of("person_0"))
        assert Artefacts(bench.folder).meta().lora_name == "portrait-anna"
        assert (folder / "portrait-anna.safetensors").is_file()
        assert bench.tools.folders.delete("queue", "anna")
        assert [path for path in folder.rglob("*") if path.is_file()] == [other]
    assert other.read_bytes() == b"somebody else's"
