"""The portrait REST API as its clients use it: signatures, envelopes, errors, isolation."""

import base64
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.errors import NoDevice, QueueFull, SDAPIError, ShuttingDown
from sdapi.portrait import faults
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.handlers import Created, Handlers, Trained
from sdapi.portrait.portrait import Portrait
from sdapi.portrait.state.records import Account, Model
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.surfaces.routes import portrait_router
from sdapi.portrait.wire.requests import CreateRequest, TrainRequest
from sdapi.portrait.wire.signature import sign
from sdapi.settings import Settings
from tests.fakes import FakeEngines
from tests.photo_server import PhotoServer, photo_server
from tests.portraits.people import PERSON

APP, TOKEN = "20230001", "0123456789abcdef0123456789abcdef"
OTHER, OTHER_TOKEN = "20230002", "fedcba9876543210fedcba9876543210"
SD15_ONLY, ONE_CALL = "20230003", "20230004"
CHECK, TRAIN, CREATE = (f"/api/v1/aigc_images/{name}" for name in ("check", "train", "create"))
NO_MODEL = (404, "PARAMETER_ERROR", "model not found")
ID = "fa4ba43a-df55-45a4-9c31-bb0dc1e51234"


def add_accounts(settings: Settings) -> None:
    async def add() -> None:
        store = SqlitePortraitStore(settings.state_file)
        await store.open()
        await store.add_account(Account(APP, TOKEN))
        await store.add_account(Account(OTHER, OTHER_TOKEN))
        await store.add_account(Account(SD15_ONLY, TOKEN, ("sd15",)))
        await store.add_account(Account(ONE_CALL, TOKEN, quota=1))
        await store.close()

    anyio.run(add)


@pytest.fixture(scope="module")
def photos() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A whole server that may fetch from loopback; it has a token, which these calls need not."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("portrait"),
        allow_private_urls=True,
        portrait_processes=1,
        token="server-token",
    )
    add_accounts(settings)
    with TestClient(build_app(settings, FakeEngines()), raise_server_exceptions=False) as running:
        yield running


def call(
    client: TestClient,
    path: str,
    body: object = None,
    *,
    app: str = APP,
    token: str = TOKEN,
    method: str = "POST",
    signed_path: str | None = None,
    signed_body: bytes | None = None,
) -> Any:
    """A signed call; `body` is bytes as sent, or what Python's client would make of it."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    made = sign(token, method, signed_path or path, data if signed_body is None else signed_body)
    headers = {"Authorization": f"{app}:{made}", "Accept": "text/plain"}
    return client.request(method, path, content=data, headers=headers)


def told(response: Any) -> tuple[int, str, str]:
    """Status, code and message; an error's data is an object."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert list(body) == ["request_id", "code", "message", "data"]
    assert str(uuid.UUID(body["request_id"])) == body["request_id"]
    assert isinstance(body["data"], dict)
    return response.status_code, body["code"], body["message"]


def codes(response: Any) -> list[int]:
    assert told(response) == (200, "OK", "success")
    return [result["code"] for result in response.json()["data"]["check_results"]]


# --- check ---


def test_one_persons_photos_pass_and_a_stranger_does_not(client: TestClient, photos: PhotoServer):
    urls = photos.of(*PERSON[:3], "turned", "stranger")
    response = call(client, CHECK, {"action": "AIGCImageCheck", "images": urls, "model_name": ""})
    assert codes(response) == [1, 1, 1, 1, 6]
    body = response.json()
    data = body["data"]
    assert list(data) == ["check_results", "cost_time", "images", "request_id"]
    assert data["images"] == urls
    assert data["request_id"] == body["request_id"]
    assert data["cost_time"] > 0
    assert [result["url"] for result in data["check_results"]] == urls
    assert [result["frontal"] for result in data["check_results"]] == [True] * 3 + [False] * 2
    assert data["check_results"][4] == {
        "code": 6,
        "frontal": False,
        "message": "This photo is not the same person in photos.",
        "url": urls[4],
    }


def test_each_photo_that_cannot_serve_has_its_code(client: TestClient, photos: PhotoServer):
    names = ("two", "nobody", "html", "broken", "empty", "missing", "huge", "bomb", "animated")
    urls = [*photos.of(*names), "xx.jpg", "", "ftp://a/b", "http://127.0.0.1:1/x"]
    response = call(client, CHECK, {"images": urls})
    assert codes(response) == [3, 3, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2]
    messages = {result["message"] for result in response.json()["data"]["check_results"]}
    assert messages == {"success", "Image decode error.", "Number of face is not 1."}


def test_the_go_clients_recorded_bytes_are_taken(client: TestClient):
    """The contract's vectors: bodies with a line feed at the end, and none at all."""
    recorded = [
        (
            CHECK,
            b'{"action":"AIGCImageCheck","images":["https://example.com/0.jpg"]}\n',
            "6ac2ff85dd37633fe7d17645c20f81f9acba2d74983d4631eab6b21031e3c138",
            (200, "OK", "success"),
        ),
        (
            "/api/v1/async_jobs/11002",
            b"",
            "dad6e4370898f3b8601a816b5dc90caf7f06918a8f8d44ca429698ea874854e4",
            (404, "PARAMETER_ERROR", "job not found"),
        ),
        (
            "/api/v1/async_jobs/11002",
            b"{}",
            "8099671140ef806c4e31ff7142b7c8e4e5f173e75921476b60971221e67bcfea",
            (404, "PARAMETER_ERROR", "job not found"),
        ),
    ]
    for path, body, signature, expected in recorded:
        headers = {
            "Authorization": f"{APP}:{signature}",
            "X-Request-Time": "1692693815",
            "User-Agent": "AI-Service-Go-Client/1.0.0/go",
        }
        response = client.post(path, content=body, headers=headers)
        assert told(response) == expected
    batch = "90f8733c7047fafbd40305cce4e4b09e534922386ef06a98f42ea1999ea88d4b"
    response = client.get("/api/v1/batch_jobs/3", headers={"Authorization": f"{APP}:{batch}"})
    assert told(response) == (404, "PARAMETER_ERROR", "job not found")


# --- errors before any work ---


@pytest.mark.parametrize("authorization", [None, "", APP, "nobody:sign", ":sign", "server-token"])
def test_an_unknown_appid_is_named_first(client: TestClient, authorization: str | None):
    headers = {} if authorization is None else {"Authorization": authorization}
    for path in (CHECK, "/api/v1/nothing"):
        response = client.post(path, content=b"no JSON", headers=headers)
        assert told(response) == (400, "PARAMETER_ERROR", "not found appid")


def test_a_forged_or_replayed_signature_is_refused(client: TestClient):
    body = {"images": []}
    wrong = (401, "PARAMETER_ERROR", "sign error")
    assert told(call(client, CHECK, body, token=OTHER_TOKEN)) == wrong
    assert told(call(client, CHECK, body, app=OTHER)) == wrong
    assert told(call(client, CHECK, body, signed_path=TRAIN)) == wrong
    assert told(call(client, CHECK, body, signed_body=b"")) == wrong
    assert told(call(client, CHECK, body, signed_path=CHECK.upper())) == wrong
    for signature in ("", "é", "0" * 64):
        headers = {"Authorization": f"{APP}:{signature}".encode()}
        assert told(client.post(CHECK, headers=headers)) == wrong


def test_what_is_not_portrait_is_not_found(client: TestClient):
    for path in ("/api/v1/ai_creation", "/api/v1/aigc_images/sd", "/api/v1/x/y"):
        assert told(call(client, path, {"images": ["u"]})) == NO_MODEL
    assert told(call(client, CHECK, {"images": ["u"], "model_name": "other"})) == NO_MODEL
    assert told(call(client, CHECK, method="GET")) == NO_MODEL
    for job in ("0", "-1", "x", "99999999999999999999", "1"):
        response = call(client, f"/api/v1/async_jobs/{job}", {})
        assert told(response) == (404, "PARAMETER_ERROR", "job not found")
        assert told(call(client, f"/api/v1/async_jobs/{job}", method="GET")) == told(response)
    php = call(client, "/batch_jobs/3", method="GET")
    assert told(php) == (404, "PARAMETER_ERROR", "job not found")


def test_a_quota_counts_calls_that_succeed(client: TestClient):
    over = (400, "EXCEEDED_QUOTA_ERROR", "exceeded quota")
    for _ in range(3):
        response = call(client, CHECK, {"images": []}, app=ONE_CALL)
        assert told(response) == (462, "error", "Image not provided")
    assert told(call(client, CHECK, {"images": ["x"]}, app=ONE_CALL)) == (200, "OK", "success")
    assert told(call(client, CHECK, b"no JSON", app=ONE_CALL)) == over
    response = call(client, "/api/v1/async_jobs/1", {}, app=ONE_CALL)
    assert told(response) == (404, "PARAMETER_ERROR", "job not found")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Invalid input data"),
        (b"no JSON", "Invalid input data"),
        (b"[1]", "Invalid input data"),
        (b"{'images': ['u']}", "Invalid input data"),
        ({"images": "u"}, "Invalid input data"),
        ({"images": [3]}, "Invalid input data"),
        ({"images": ["u"] * 51}, "Invalid input data"),
        ({}, "Image not provided"),
        ({"images": []}, "Image not provided"),
        ({"images": None}, "Image not provided"),
    ],
)
def test_a_body_that_cannot_serve_is_462(client: TestClient, body: object, message: str):
    assert told(call(client, CHECK, body)) == (462, "error", message)


def test_a_body_that_is_too_large_is_not_read(client: TestClient):
    response = call(client, CHECK, b" " * (1 << 20) + b"{}")
    assert told(response) == (413, "PARAMETER_ERROR", "request body too large")


def test_the_servers_token_is_for_the_status_page_alone(client: TestClient):
    assert client.get("/portrait/status").status_code == 401
    response = client.get("/portrait/status", headers={"Authorization": "server-token"})
    status = response.json()
    active = {row["role"]: row["name"] for row in status["providers"] if row["active"]}
    assert active == {
        "detector": "dlib",
        "landmarks": "dlib68",
        "embedder": "dlib-resnet",
        "matting": "grabcut",
        "swapper": "warp",
    }
    assert all(row["licence"] for row in status["providers"])
    assert status["services"] == {"check": True, "train": True, "create": True}
    # There is the demo checkpoint, and none of SDXL.
    both, none = {"train": True, "create": True}, {"train": False, "create": False}
    assert status["models"] == {"sd15": both, "xl": none}
    assert status["trainings"] == []


def test_private_addresses_are_never_asked(tmp_path: Path, photos: PhotoServer):
    settings = Settings(data_dir=tmp_path, portrait_processes=1)
    add_accounts(settings)
    before = len(photos.asked)
    with TestClient(build_app(settings, FakeEngines())) as client:
        urls = [
            *photos.of("person_0"),
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/x",
            "http://localhost/x",
            "file:///etc/passwd",
        ]
        response = call(client, CHECK, {"images": urls})
    assert codes(response) == [2] * 5
    assert len(photos.asked) == before


def test_without_portrait_there_are_no_routes(tmp_path: Path):
    app = build_app(Settings(data_dir=tmp_path, portrait=False), FakeEngines())
    with TestClient(app) as client:
        assert call(client, CHECK, {}).json() == {"detail": "Not Found"}


# --- training and creation, with what does the work replaced ---


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
    "error", [ShuttingDown("the server is shutting down"), NoDevice("none"), QueueFull("full")]
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


def test_users_of_the_queue_can_be_deleted(client: TestClient):
    settings: Settings = client.app.state.services.settings  # pyright: ignore[reportAttributeAccessIssue]
    folder = settings.portrait_dir / "users" / "zhoumo"
    (folder / "original_backup").mkdir(parents=True)
    assert client.delete("/portrait/users/zhoumo").status_code == 401
    client.headers["authorization"] = "server-token"
    try:
        assert client.delete("/portrait/users/zhoumo").json() == {"user_id": "zhoumo"}
        assert not folder.exists()
        for name in ("zhoumo", "..%2Fx", "%2e%2e"):
            assert client.delete(f"/portrait/users/{name}").status_code in (404, 405)
    finally:
        del client.headers["authorization"]


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
