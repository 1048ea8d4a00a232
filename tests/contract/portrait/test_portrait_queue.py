"""The three queue services as the dispatcher calls them: bodies in, bodies and statuses out."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from sdapi.errors import NoDevice, SDAPIError, ShuttingDown, StorageFailed
from sdapi.portrait import faults
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.handlers import Created, Handlers, Trained
from sdapi.portrait.portrait import Portrait
from sdapi.portrait.state.records import Model
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.surfaces.queue_services import (
    CHECK,
    CREATE,
    SINK_BYTES,
    TRAIN,
    USEFUL_SINK_BYTES,
)
from sdapi.portrait.wire.requests import CreateRequest, TrainRequest
from sdapi.queue.dispatching.in_process import InProcess
from sdapi.queue.dispatching.inference import Call
from sdapi.settings import Settings
from tests.photo_server import PhotoServer, photo_server
from tests.portraits.people import PERSON

pytestmark = pytest.mark.anyio


class Work:
    """Trains and creates at once."""

    def __init__(self) -> None:
        self.fails: faults.Fault | None = None
        self.passes: SDAPIError | None = None
        self.is_slow = False
        self.portrait = Image.new("RGB", (24, 16), "red")
        self.warnings: tuple[str, ...] = ()
        self.ended = asyncio.Event()
        self.on_settled: Callable[[], None] = lambda: None

    async def can_train(self, *, is_xl: bool) -> bool:
        return True

    async def train(self, owner: str, model_id: str, request: TrainRequest) -> Trained:
        if self.fails is not None:
            raise PortraitError(self.fails)
        return Trained({"base": "sd15"}, settle=self.settle)

    async def settle(self) -> None:
        self.on_settled()

    async def can_create(self, *, is_xl: bool) -> bool:
        return True

    async def create(self, models: Sequence[Model], request: CreateRequest) -> Created:
        if self.passes is not None:
            raise self.passes
        if self.is_slow:
            try:
                await asyncio.sleep(60)
            finally:
                self.ended.set()
        return Created(self.portrait, self.warnings)


@pytest.fixture(scope="module")
def photos() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def portrait(tmp_path: Path) -> AsyncIterator[Portrait]:
    """As it is while nothing trains or creates."""
    async for made in _started(tmp_path, Handlers()):
        yield made


@pytest.fixture
async def able(tmp_path: Path, work: Work) -> AsyncIterator[Portrait]:
    """With what trains and creates."""
    async for made in _started(tmp_path, Handlers(work, work)):
        yield made


async def _started(path: Path, handlers: Handlers) -> AsyncIterator[Portrait]:
    settings = Settings(data_dir=path, allow_private_urls=True, portrait_processes=1)
    made = Portrait.build(settings, handlers)
    await made.start()
    yield made
    await made.close()


async def post(
    portrait: Portrait, service: str, body: object, sink_bytes: int = SINK_BYTES
) -> httpx.Response:
    """`POST /` of a service; `body` is bytes as sent, or what `json.dumps` makes of it."""
    transport = httpx.ASGITransport(portrait.queue_services.app(service, sink_bytes))
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx.AsyncClient(transport=transport, base_url="http://queue") as client:
        return await client.post("/", content=data)


def failed(request_id: str, message: str) -> dict[str, Any]:
    return {"request_id": request_id, "code": "error", "message": message, "data": {}}


async def test_the_check_of_the_samples_is_answered_as_in_the_documents(
    portrait: Portrait, photos: PhotoServer
):
    urls = photos.of(PERSON[0], "turned")
    sent = {"request_id": 12345, "images": urls, "configure": {"face_reconize": True}}
    response = await post(portrait, CHECK, sent)
    assert response.status_code == 200
    assert response.text.startswith('{"request_id": "12345", "code": "OK", "message": "success", ')
    data = response.json()["data"]
    assert list(data) == ["request_id", "images", "configure", "cost_time", "check_results"]
    assert {key: data[key] for key in sent} == sent
    assert data["check_results"] == [
        {"url": urls[0], "message": "success", "code": 1, "frontal": True},
        {"url": urls[1], "message": "success", "code": 1, "frontal": False},
    ]
    assert list(data["check_results"][0]) == ["url", "message", "code", "frontal"]


async def test_the_java_samples_text_is_read_and_strangers_pass_unasked(
    portrait: Portrait, photos: PhotoServer
):
    a, b, c = photos.of(PERSON[0], PERSON[1], "stranger")
    text = (
        "{\n 'request_id': 12345,\n 'images' : [\"%s\", \"%s\", \"%s\"],\n 'configure' : {\n"
        " 'face_reconize' : %s,\n }\n}"
    )
    for word, expected in (("False", [1, 1, 1]), ("True", [1, 1, 6])):
        response = await post(portrait, CHECK, (text % (a, b, c, word)).encode())
        results = response.json()["data"]["check_results"]
        assert [result["code"] for result in results] == expected


async def test_photos_that_fail_leave_the_answer_ok(portrait: Portrait):
    response = await post(portrait, CHECK, {"request_id": "é", "images": ["xx.jpg", "xx.jpg"]})
    body = response.json()
    assert (response.status_code, body["code"], body["request_id"]) == (200, "OK", "é")
    assert [one["code"] for one in body["data"]["check_results"]] == [2, 2]


@pytest.mark.parametrize(
    ("service", "body", "message"),
    [
        (CHECK, b"no body", failed("", "Invalid input data")),
        (CHECK, b"[]", failed("", "Invalid input data")),
        (CHECK, b" " * (1 << 20) + b"{}", failed("", "Invalid input data")),
        (CHECK, {"images": ["u"]}, failed("", "Invalid input data")),
        (CHECK, {"request_id": [], "images": ["u"]}, failed("", "Invalid input data")),
        (CHECK, {"request_id": 5}, failed("5", "Image not provided")),
        (CHECK, {"request_id": 5, "images": "u"}, failed("5", "Invalid input data")),
        (
            CHECK,
            {"request_id": 5, "images": ["u"], "configure": {"face_reconize": "maybe"}},
            failed("5", "Invalid input data"),
        ),
        (TRAIN, {"request_id": 5, "images": ["u"]}, failed("5", "Invalid input data")),
        (
            TRAIN,
            {"request_id": 5, "images": ["u"], "configure": {"user_id": "../../etc"}},
            failed("5", "Invalid input data"),
        ),
        (
            CREATE,
            {"request_id": 5, "template_image": "u"},
            failed("5", "Invalid input data. Please check the input dict."),
        ),
        (CREATE, b"no", failed("", "Invalid input data. Please check the input dict.")),
        (
            CREATE,
            {"request_id": 5, "configure": {"user_id": "a"}},
            failed("5", "Image not provided. Please check the template_image."),
        ),
        (
            CREATE,
            {"request_id": 5, "template_image": "u", "configure": {"user_id": "a/../b"}},
            failed("5", "Prompts get error. Please check the model_id."),
        ),
        (
            CREATE,
            {"request_id": 5, "template_image": "u", "configure": {"user_id": []}},
            failed("5", "Prompts get error. Please check the model_id."),
        ),
        (
            CREATE,
            {"request_id": 5, "configure": {"user_id": "a/../b"}},
            failed("5", "Image not provided. Please check the template_image."),
        ),
    ],
)
async def test_requests_that_cannot_be_done_are_462(
    portrait: Portrait, service: str, body: object, message: dict[str, Any]
):
    response = await post(portrait, service, body)
    assert (response.status_code, response.json()) == (462, message)


async def test_a_service_without_its_part_is_not_found(portrait: Portrait):
    configure = {"user_id": "zhoumo"}
    body = {"request_id": 5, "images": ["u"], "template_image": "u", "configure": configure}
    for service in (TRAIN, CREATE):
        response = await post(portrait, service, body)
        assert (response.status_code, response.json()) == (404, failed("5", "model not found"))


async def test_a_trained_user_is_portrayed_as_png(able: Portrait, work: Work):
    train = {"request_id": 12345, "images": ["u"], "configure": {"user_id": "zhoumo"}}
    create = {"request_id": 1, "template_image": "u", "configure": {"user_id": "zhoumo"}}
    before = await post(able, CREATE, create)
    roop = "Roop image decord error. Pleace check the user's lora is trained or not."
    assert (before.status_code, before.json()) == (462, failed("1", roop))
    trained = await post(able, TRAIN, train)
    assert list(trained.json()["data"]) == ["user_id", "cost_time"]
    assert trained.json()["data"]["user_id"] == "zhoumo"
    created = await post(able, CREATE, create)
    data = created.json()["data"]
    assert list(data) == ["user_id", "image", "cost_time"]
    assert data["image"].startswith("iVBORw0KGgo")
    assert Image.open(io.BytesIO(base64.b64decode(data["image"]))).size == (24, 16)
    work.fails = faults.NO_BEST_IMAGE
    again = await post(able, TRAIN, train)
    text = "Training - Not get best template image"
    assert (again.status_code, again.json()) == (469, failed("12345", text))
    assert (await post(able, CREATE, create)).status_code == 200  # the old model is still there


@pytest.mark.parametrize("sink_bytes", [USEFUL_SINK_BYTES, 20 << 10, 100 << 10, 500 << 10])
@pytest.mark.parametrize("request_id", ["1", "日本", "x" * 900])
async def test_a_portrait_is_as_large_as_its_queue_takes(
    tmp_path: Path, work: Work, sink_bytes: int, request_id: str
):
    work.portrait = Image.effect_noise((300, 400), 100).convert("RGB")
    work.warnings = ("a warning",)
    async for portrait in _started(tmp_path, Handlers(work, work)):
        await post(portrait, TRAIN, TRAINING)
        response = await post(portrait, CREATE, {**CREATION, "request_id": request_id}, sink_bytes)
        data = response.json()["data"]
        assert response.status_code == 200
        assert len(response.content) <= sink_bytes
        size = Image.open(io.BytesIO(base64.b64decode(data["image"]))).size
        if size != (300, 400):
            assert min(size) >= 64
            told = f"too large for the output queue: 300x400 became {size[0]}x{size[1]}"
            assert data["warnings"] == ["a warning", f"the picture is {told}"]
            assert len(response.content) > sink_bytes / 3


@pytest.mark.parametrize("sink_bytes", [1 << 10, 8 << 10])
async def test_a_queue_too_small_for_a_portrait_says_what_to_raise(
    tmp_path: Path, work: Work, sink_bytes: int
):
    work.portrait = Image.merge("RGB", [Image.effect_noise((300, 400), 100) for _ in range(3)])
    async for portrait in _started(tmp_path, Handlers(work, work)):
        await post(portrait, TRAIN, TRAINING)
        response = await post(portrait, CREATE, CREATION, sink_bytes)
        assert (response.status_code, response.json()["code"]) == (413, "error")
        message = response.json()["message"]
        assert f"takes {sink_bytes} bytes" in message
        assert "queue.sink.max_payload_size_kb" in message
        assert len(response.content) < 1 << 10
        work.portrait = Image.new("RGB", (24, 16), "red")  # what fits is answered
        assert (await post(portrait, CREATE, CREATION, sink_bytes)).status_code == 200


CREATION = {"request_id": 1, "template_image": "u", "configure": {"user_id": "zhoumo"}}
TRAINING = {"request_id": 1, "images": ["u"], "configure": {"user_id": "zhoumo"}}


@pytest.mark.parametrize("error", [ShuttingDown("the server is shutting down"), NoDevice("none")])
async def test_what_passes_goes_back_to_the_queue(able: Portrait, work: Work, error: SDAPIError):
    await post(able, TRAIN, TRAINING)
    work.passes = error
    response = await post(able, CREATE, CREATION)
    assert (response.status_code, response.json()) == (503, failed("1", error.detail))
    assert response.headers["retry-after"] == str(error.retry_after_s)


async def test_nothing_is_drawn_for_a_caller_who_has_gone(able: Portrait, work: Work):
    await post(able, TRAIN, TRAINING)
    work.is_slow = True
    program = InProcess(able.queue_services.app(CREATE), lambda: True)
    call = asyncio.ensure_future(program.call(Call("/", "", "", json.dumps(CREATION).encode())))
    await asyncio.sleep(0.2)
    assert not work.ended.is_set()
    call.cancel()
    await asyncio.wait_for(work.ended.wait(), 3)  # not only when the queue's patience has ended
    await asyncio.wait([call])


async def test_a_store_that_is_away_for_a_moment_loses_no_trained_model(
    able: Portrait, work: Work, monkeypatch: pytest.MonkeyPatch
):
    put, tries = SqlitePortraitStore.put_model, list[str]()
    settled_at: list[int] = []
    work.on_settled = lambda: settled_at.append(len(tries))

    async def blinking(self: SqlitePortraitStore, owner: str, model_id: str, about: Any) -> None:
        tries.append(model_id)
        if len(tries) < 3:
            raise StorageFailed("away")
        assert settled_at == []
        await put(self, owner, model_id, about)

    monkeypatch.setattr("sdapi.portrait.surfaces.queue_services._RETRY_S", 0.01)
    monkeypatch.setattr(SqlitePortraitStore, "put_model", blinking)
    assert (await post(able, TRAIN, TRAINING)).status_code == 200
    assert settled_at == [3]
    assert (await post(able, CREATE, CREATION)).status_code == 200
