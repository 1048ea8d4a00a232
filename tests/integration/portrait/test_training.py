"""A person trained on the demo checkpoint, end to end, by real clients and over crashes."""

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import requests

from sdapi.portrait.models.artefacts import Artefacts
from sdapi.portrait.state.records import Account, Job, JobState, NewJob, owner_of
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.wire.requests import TrainRequest
from sdapi.settings import Settings
from tests.eas_client import client_python
from tests.photo_server import PhotoServer, photo_server
from tests.portraits.portrait_models import jpeg, picture
from tests.servers import ServerProcess, server_process

#: minutes on a busy machine
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

APP, TOKEN = "20230001", "0123456789abcdef0123456789abcdef"
AI_SERVICE = Path(__file__).parents[2] / "requirements-ai-service-client.txt"
FLAGS = ("--allow-private-urls", "--portrait-processes=1", "--no-hashing")
STEPS = 16

#: the document's end-to-end program up to its `Train`, but for host, ids, photos and the pause
REST_TRAIN = """
import logging, sys, time
from ai_service_python_sdk.client.api_client import ApiClient
from ai_service_python_sdk.client.api.ai_service_aigc_images_api import AIGCImagesApi
from ai_service_python_sdk.client.api.ai_service_job_api import AiServiceJobApi

client = ApiClient('%s', '%s', '%s')
api = AIGCImagesApi(client)
images = %r
response = api.aigc_images_check(images, '', None)
assert response.code == 'OK', response.message
assert all(one['code'] == 1 for one in response.data['check_results']), response.data
response = api.aigc_images_train(images, '', None)
assert response.code == 'OK', response.message
job_id, model_id = response.data['job_id'], response.data['model_id']
while True:
    response = AiServiceJobApi(client).get_async_job(job_id)
    assert response.code == 'OK', response.message
    state = response.data['job']['state']
    if state in (2, 3):
        break
    time.sleep(1)
import json
print(json.dumps([model_id, response.data['job']]))
"""

QUEUE_TRAIN = """
import json
from eas_prediction import QueueClient
endpoint, images, steps = '%s', %r, %d
input_queue = QueueClient(endpoint, 'photog_train_pmml')
input_queue.set_token('')
input_queue.init()
datas = json.dumps({
    'request_id': 12345,
    'images': images,
    'configure': {
        'user_id': 'zhoumo',
        'sex': 'female',
        'max_train_steps': steps,
        'val_save_checkpointing_steps': steps // 2,
    },
})
index, request_id = input_queue.put(f'{datas}')
sink_queue = QueueClient(endpoint, 'photog_train_pmml/sink')
sink_queue.set_token('')
sink_queue.init()
watcher = sink_queue.watch(0, 5, auto_commit=True)
for message in watcher.run():
    print(message.data.decode('utf-8'))
    watcher.close()
    break
"""


@pytest.fixture(scope="module")
def photos() -> Iterator[PhotoServer]:
    with photo_server() as server:
        for view in range(10):
            server.files[f"her_{view}"] = jpeg(picture(8, view, side=320))
        yield server


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()

    async def add_account() -> None:
        store = SqlitePortraitStore(Settings(data_dir=folder).state_file)
        await store.open()
        await store.add_account(Account(APP, TOKEN))
        await store.close()

    anyio.run(add_account)
    return folder


def her(photos: PhotoServer, count: int = 10) -> list[str]:
    return photos.of(*(f"her_{view}" for view in range(count)))


def said_by(python: Path, program: str) -> Any:
    done = subprocess.run(
        [str(python), "-c", program], capture_output=True, text=True, timeout=1400, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def put_training(url: str, images: list[str], user: str, steps: int) -> None:
    body = {
        "request_id": 1,
        "images": images,
        "configure": {
            "user_id": user,
            "max_train_steps": steps,
            "val_save_checkpointing_steps": 4,
        },
    }
    requests.post(f"{url}/api/predict/photog_train_pmml", json=body, timeout=30).raise_for_status()


def result_of(url: str, timeout_s: float = 900) -> dict[str, Any]:
    """The oldest item of the output queue, taken out."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        answer = requests.get(
            f"{url}/api/predict/photog_train_pmml/sink",
            params={"_length_": 1, "_timeout_": "10s", "_auto_delete_": "true", "_raw_": "true"},
            timeout=60,
        )
        if answer.status_code == 200 and answer.content:
            return answer.json()
    raise AssertionError("no result in time")


def until(is_true: Callable[[], bool], timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.2)


def drawn(server: ServerProcess, prompt: str) -> dict[str, Any]:
    body = {"prompt": prompt, "steps": 4, "width": 128, "height": 128, "seed": 1}
    answer = requests.post(f"{server.url}/sdapi/v1/txt2img", json=body, timeout=300)
    answer.raise_for_status()
    return answer.json()


def test_the_queue_client_trains_a_person_whose_lora_prompts_can_use(
    data_dir: Path, photos: PhotoServer
):
    with server_process(data_dir, *FLAGS) as server:
        endpoint = server.url.removeprefix("http://")
        python = client_python()
        result = said_by(python, QUEUE_TRAIN % (endpoint, her(photos), STEPS))
        assert (result["request_id"], result["code"]) == ("12345", "OK")
        assert list(result["data"]) == ["user_id", "cost_time"]
        assert result["data"]["user_id"] == "zhoumo"
        with_lora = drawn(server, "a portrait of a person <lora:zhoumo:1>")
        without = drawn(server, "a portrait of a person")
        listed = requests.get(f"{server.url}/sdapi/v1/loras", timeout=30).json()
    assert "warnings" not in with_lora
    assert with_lora["images"] != without["images"]
    assert [lora["name"] for lora in listed] == ["zhoumo"]
    files = Artefacts(data_dir / "portrait" / "users" / "zhoumo")
    meta = files.meta()
    assert (meta.steps, meta.sex, set(meta.scores)) == (STEPS, "female", {8, 16})
    assert len(files.references()) == 5
    assert files.face_id.is_file()


def test_the_ai_service_sdk_checks_trains_and_polls(
    data_dir: Path, photos: PhotoServer, monkeypatch: pytest.MonkeyPatch
):
    with server_process(data_dir, *FLAGS) as server:
        program = REST_TRAIN % (server.url, APP, TOKEN, her(photos, 3))
        model_id, job = said_by(client_python(AI_SERVICE), program)
    assert (job["state"], job["message"], job["app_id"]) == (2, "success", APP)
    told = json.loads(job["Result"])
    assert told["model_id"] == model_id
    assert [state["code"] for state in told["states"]] == [1, 1, 1]
    assert Artefacts(data_dir / "portrait" / "models" / model_id).meta().steps == 400


def test_a_training_that_was_killed_leaves_the_old_model_and_the_next_one_goes_on(
    data_dir: Path, photos: PhotoServer
):
    model = data_dir / "portrait" / "users" / "anna"
    work = data_dir / "portrait" / "trainings" / "users-anna"
    with server_process(data_dir, *FLAGS) as server:
        put_training(server.url, her(photos, 3), "anna", 4)
        assert result_of(server.url)["code"] == "OK"
        before = Artefacts(model).lora.read_bytes()
        put_training(server.url, her(photos, 4), "anna", 200)
        until(lambda: (work / "weights" / "resume.pt").exists())
        os.kill(server.process.pid, signal.SIGKILL)
    assert Artefacts(model).lora.read_bytes() == before
    with server_process(data_dir, *FLAGS) as server:
        # The item had its one delivery, so it is not trained again by itself.
        put_training(server.url, her(photos, 4), "anna", 200)
        until(lambda: "goes on at step" in server.log)
        assert Artefacts(model).lora.read_bytes() == before


def test_a_job_whose_server_was_killed_goes_on_by_itself(data_dir: Path, photos: PhotoServer):
    model_id = str(uuid.uuid4())
    owner, settings = owner_of(APP), Settings(data_dir=data_dir)
    work = data_dir / "portrait" / "trainings" / f"models-{model_id}"
    names = ("killed_0", "killed_1")
    for view, name in enumerate(names):
        photos.files[name] = jpeg(picture(8, view, side=320))
    request = TrainRequest(
        tuple(photos.of(*names)), max_train_steps=60, steps_between_evaluations=20
    )

    async def stored(job: NewJob | None = None, number: int = 0) -> Job:
        store = SqlitePortraitStore(settings.state_file)
        await store.open()
        found = await (store.job(owner, number) if job is None else store.add_job(job))
        await store.close()
        assert found is not None
        return found

    job = anyio.run(stored, NewJob(owner, model_id, request.to_json(), APP))
    with server_process(data_dir, *FLAGS) as server:
        until(lambda: (work / "weights" / "resume.pt").exists())
        os.kill(server.process.pid, signal.SIGKILL)
    killed = anyio.run(stored, None, job.id)
    assert killed.state is JobState.RUNNING
    with server_process(data_dir, *FLAGS) as server:
        until(lambda: anyio.run(stored, None, job.id).state > JobState.RUNNING, timeout_s=900)
        assert "goes on at step" in server.log
    done = anyio.run(stored, None, job.id)
    assert (done.state, done.message, done.attempts) == (JobState.SUCCEEDED, "success", 2)
    assert Artefacts(data_dir / "portrait" / "models" / model_id).meta().steps == 60
    assert [photos.asked.count(name) for name in names] == [1, 1]
    assert not work.exists()
