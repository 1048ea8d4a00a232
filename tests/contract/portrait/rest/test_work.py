"""Training and creation over the signed REST API, with what does the work replaced."""

import base64
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from sdapi.errors import NoDevice, NoProcess, QueueFull, SDAPIError, ShuttingDown
from sdapi.portrait import faults
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.handlers import Created, Handlers, Trained
from sdapi.portrait.portrait import Portrait
from sdapi.portrait.state.records import Model
from sdapi.portrait.surfaces.routes import portrait_router
from sdapi.portrait.wire.requests import CreateRequest, TrainRequest
from sdapi.settings import Settings
from tests.contract.portrait.rest.signed_calls import (
    APP,
    CREATE,
    ID,
    NO_MODEL,
    ONE_CALL,
    OTHER,
    OTHER_TOKEN,
    SD15_ONLY,
    TRAIN,
    add_accounts,
    call,
    told,
)


class Work:
    """Trains and creates at once."""

    def __init__(self) -> None:
        self.fails: faults.Fault | None = None
        self.passes: SDAPIError | None = None
        self.has_checkpoint = True
        self.trained: list[TrainRequest] = []
        self.created: list[tuple[Sequence[Model], CreateRequest]] = []

    async def can_train(self, *, is_xl: bool) -> bool:
        return self.has_checkpoint

    async def train(self, owner: str, model_id: str, request: TrainRequest) -> Trained:
        if self.fails is not None:
            raise PortraitError(self.fails)
        self.trained.append(request)
        return Trained({"base": "xl" if request.is_xl else "sd15"})

    async def can_create(self, *, is_xl: bool) -> bool:
        return True

    async def create(self, models: Sequence[Model], request: CreateRequest) -> Created:
        if self.passes is not None:
            raise self.passes
        if self.fails is not None:
            raise PortraitError(self.fails)
        self.created.append((models, request))
        return Created(Image.new("RGB", (24, 16), "red"))


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def serve(tmp_path: Path, work: Work) -> Iterator[Callable[..., TestClient]]:
    """Start the portrait part alone, with the fake work."""
    running: list[TestClient] = []

    def start(**options: Any) -> TestClient:
        settings = Settings(data_dir=tmp_path, **options)
        add_accounts(settings)
        portrait = Portrait.build(settings, Handlers(work, work))

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> Any:
            await portrait.start()
            yield
            await portrait.close()

        app = FastAPI(lifespan=lifespan)
        app.state.is_stopping = False
        app.include_router(portrait_router(portrait))
        running.append(TestClient(app).__enter__())
        return running[-1]

    yield start
    for client in running:
        client.__exit__(None, None, None)


@pytest.fixture
def able(serve: Callable[..., TestClient]) -> TestClient:
    return serve()


def train(client: TestClient, **more: Any) -> dict[str, Any]:
    """Train, wait for the job's end; its ids."""
    response = call(client, TRAIN, {"images": ["http://a/0.jpg"], **more})
    assert told(response) == (200, "OK", "success")
    data = response.json()["data"]
    end = time.monotonic() + 20
    while job_of(client, data["job_id"])["state"] < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    return data


def job_of(client: TestClient, job_id: int) -> dict[str, Any]:
    response = call(client, f"/api/v1/async_jobs/{job_id}", {})
    assert list(response.json()["data"]) == ["job"]
    return response.json()["data"]["job"]


def test_a_training_is_a_job_that_ends_in_a_model(able: TestClient, work: Work):
    data = train(able)
    assert set(data) == {"job_id", "model_id"}
    assert isinstance(data["job_id"], int)
    assert len(data["model_id"]) == 36
    job = job_of(able, data["job_id"])
    assert (job["app_id"], job["state"], job["message"], job["type"]) == (
        APP,
        2,
        "success",
        "Image",
    )
    assert json.loads(job["Result"])["model_id"] == data["model_id"]
    body = {"model_id": data["model_id"], "template_image": "http://a/t.jpg", "model_name": ""}
    created = call(able, CREATE, {**body, "configure": {"lora_weights": 3}})
    assert told(created) == (200, "OK", "success")
    answer = created.json()["data"]
    assert list(answer) == ["cost_time", "image", "model_id", "warnings"]
    assert answer["model_id"] == data["model_id"]
    assert answer["image"].startswith("/9j/4AAQ")
    assert Image.open(io.BytesIO(base64.b64decode(answer["image"]))).size == (24, 16)
    several = call(able, CREATE, {"model_ids": [data["model_id"]] * 2, "template_image": "u"})
    assert several.json()["data"]["model_id"] == f"{data['model_id']},{data['model_id']}"
    assert "warnings" not in several.json()["data"]
    assert [len(models) for models, _ in work.created] == [1, 2]


def test_a_failed_training_is_told_by_the_job_alone(able: TestClient, work: Work):
    work.fails = faults.IMAGES_UNUSABLE
    job = job_of(able, train(able)["job_id"])
    assert (job["state"], job["message"]) == (3, "Image process error")
    assert json.loads(job["Result"])["status"] == 462


@pytest.mark.parametrize(
    "error",
    [
        ShuttingDown("the server is shutting down"),
        NoDevice("none"),
        NoProcess("none"),
        QueueFull("full"),
    ],
)
def test_what_passes_is_no_fault_and_says_when_to_ask_again(
    able: TestClient, work: Work, error: SDAPIError
):
    model = train(able)["model_id"]
    work.passes = error
    response = call(able, CREATE, {"model_id": model, "template_image": "u"})
    assert told(response) == (error.status, "error", error.detail)
    assert response.headers["retry-after"] == str(error.retry_after_s)


def test_no_number_of_a_job_is_too_long(able: TestClient):
    for number in ("9" * 5000, "9" * 10, "0" * 20, "-1", "x"):
        response = call(able, f"/api/v1/async_jobs/{number}", {})
        assert told(response) == (404, "PARAMETER_ERROR", "job not found")


def test_a_missing_checkpoint_is_told_before_the_quota_and_the_body(able: TestClient, work: Work):
    work.has_checkpoint = False
    for _ in range(2):
        assert told(call(able, TRAIN, b"no JSON", app=ONE_CALL)) == NO_MODEL


def test_a_missing_template_is_told_before_the_ids(able: TestClient):
    message = "Image not provided. Please check the template_image."
    assert told(call(able, CREATE, {"model_id": "../x"})) == (462, "error", message)


def test_a_deletion_whose_files_stay_can_be_repeated(
    able: TestClient, monkeypatch: pytest.MonkeyPatch
):
    path = f"/api/v1/models/{train(able)['model_id']}"
    with monkeypatch.context() as full:
        full.setattr("sdapi.portrait.models.folders.ModelFolders.delete", _refuse)
        status, code, _ = told(call(able, path, method="DELETE"))
        assert (status, code) == (507, "error")
    assert told(call(able, path, method="DELETE")) == (200, "OK", "success")


def _refuse(*_: object) -> bool:
    raise PermissionError("read-only")


def test_models_and_jobs_are_their_appids_own(able: TestClient):
    data = train(able)
    stranger = {"app": OTHER, "token": OTHER_TOKEN}
    response = call(able, f"/api/v1/async_jobs/{data['job_id']}", {}, **stranger)
    assert told(response) == (404, "PARAMETER_ERROR", "job not found")
    body = {"model_id": data["model_id"], "template_image": "u"}
    roop = "Roop image decord error. Pleace check the user's lora is trained or not."
    assert told(call(able, CREATE, body, **stranger)) == (462, "error", roop)
    path = f"/api/v1/models/{data['model_id']}"
    assert told(call(able, path, method="DELETE", **stranger)) == NO_MODEL
    assert told(call(able, path, method="DELETE")) == (200, "OK", "success")
    assert told(call(able, path, method="DELETE")) == NO_MODEL
    assert told(call(able, CREATE, body)) == (462, "error", roop)
    response = call(able, f"/api/v1/async_jobs/{data['job_id']}", {})
    assert told(response) == (404, "PARAMETER_ERROR", "job not found")


def test_a_deletion_names_no_path(able: TestClient):
    for name in ("..%2F..%2Fx", "x", "%2e%2e", ID.upper()):
        assert told(call(able, f"/api/v1/models/{name}", method="DELETE")) == NO_MODEL


def test_sdxl_must_be_activated_and_is_asked_for_by_name(able: TestClient, work: Work):
    train(able, model_name="train_xl")
    assert work.trained[-1].is_xl
    images = {"images": ["u"]}
    assert told(call(able, TRAIN, {**images, "model_name": "train_xl"}, app=SD15_ONLY)) == NO_MODEL
    assert told(call(able, TRAIN, {**images, "model_name": "create_xl"})) == NO_MODEL
    assert told(call(able, TRAIN, {**images, "model_name": ["x"]})) == NO_MODEL
    body = {"model_id": ID, "template_image": "u", "model_name": "create_xl"}
    assert told(call(able, CREATE, body, app=SD15_ONLY)) == NO_MODEL


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (TRAIN, b"no JSON", "Invalid input data"),
        (TRAIN, {"images": []}, "Image not provided"),
        (CREATE, b"no JSON", "Invalid input data. Please check the input dict."),
        (
            CREATE,
            {"model_id": ID, "template_image": "u", "configure": {"ipa_weight": "x"}},
            "Invalid input data. Please check the input dict.",
        ),
        (
            CREATE,
            {"model_id": ID},
            "Image not provided. Please check the template_image.",
        ),
        (
            CREATE,
            {"model_id": "../x", "template_image": "u"},
            "Prompts get error. Please check the model_id.",
        ),
        (
            CREATE,
            {"model_id": ID, "template_image": "u"},
            "Roop image decord error. Pleace check the user's lora is trained or not.",
        ),
    ],
)
def test_requests_that_cannot_be_done_are_462(
    able: TestClient, path: str, body: object, message: str
):
    assert told(call(able, path, body)) == (462, "error", message)


def test_what_creation_reports_is_its_status(able: TestClient, work: Work):
    model = train(able)["model_id"]
    for fault in (faults.FACE_COUNT, faults.FACE_ID_UNREADABLE, faults.FIRST_DIFFUSION):
        work.fails = fault
        response = call(able, CREATE, {"model_id": model, "template_image": "u"})
        assert told(response) == (fault.status, "error", fault.text)


def test_the_corrected_wording_is_a_setting(serve: Callable[..., TestClient]):
    client = serve(portrait_wording="corrected")
    response = call(client, CREATE, {"model_id": ID, "template_image": "u"})
    assert told(response)[2].startswith("Roop image decode error. Please check")
