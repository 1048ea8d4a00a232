"""Creation over both surfaces, drawn by a server behind `URL`: answers, and every error's row."""

import base64
import io
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.portrait import faults
from sdapi.portrait.creation.drawing import remote
from sdapi.portrait.faults import Fault
from sdapi.portrait.models.folders import ModelFolders
from sdapi.portrait.state.records import QUEUE_OWNER, Account, owner_of
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.wire.signature import sign
from sdapi.settings import Settings
from tests.fakes import FakeEngines
from tests.photo_server import PhotoServer, photo_server
from tests.portraits.people import pixels
from tests.portraits.portrait_models import add_person
from tests.portraits.webui_stub import WebuiStub, webui_stub

APP, TOKEN = "20230001", "0123456789abcdef0123456789abcdef"
OTHER = "20230002"
CREATE = "/api/v1/aigc_images/create"
QUEUE = "/api/predict/photog_pre_pmml"
ANN, BOB, THEIRS, HARMED = (str(uuid.UUID(int=number)) for number in (1, 2, 3, 4))
PLAIN = {"photo_enhancement_bool": False, "skin_retouching_bool": False, "sharp_ratio": 0}


@pytest.fixture(scope="module")
def photos() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[WebuiStub]:
    with webui_stub() as stub:
        yield stub


@pytest.fixture
def webui(elsewhere: WebuiStub) -> WebuiStub:
    elsewhere.reset()
    return elsewhere


async def fill(settings: Settings) -> None:
    store = SqlitePortraitStore(settings.state_file)
    await store.open()
    await store.add_account(Account(APP, TOKEN))
    await store.add_account(Account(OTHER, TOKEN))
    await store.close()
    owner = owner_of(APP)
    await add_person(settings, ANN, pixels("person_0"), owner=owner)
    await add_person(settings, BOB, pixels("stranger"), owner=owner)
    await add_person(settings, THEIRS, pixels("stranger"), owner=owner_of(OTHER))
    await add_person(settings, HARMED, pixels("stranger"), owner=owner)
    await add_person(settings, "ann", pixels("person_0"), owner=QUEUE_OWNER)
    folders = ModelFolders(settings.portrait_dir)
    (folders.of(owner, HARMED) / "face_id.jpg").write_bytes(b"")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, elsewhere: WebuiStub) -> Iterator[TestClient]:
    """A whole server whose portraits are drawn elsewhere."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("portrait"),
        allow_private_urls=True,
        portrait_processes=1,
        portrait_native_size=128,
        portrait_url=f"{elsewhere.url}/",
        portrait_authorization="secret words",
    )
    anyio.run(fill, settings)
    with TestClient(build_app(settings, FakeEngines()), raise_server_exceptions=False) as running:
        yield running


def signed(client: TestClient, body: Any, app: str = APP) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"{app}:{sign(TOKEN, 'POST', CREATE, data)}"}
    return client.post(CREATE, content=data, headers=headers)


def told(response: Any) -> tuple[int, str, str]:
    body = response.json()
    return response.status_code, body["code"], body["message"]


def queued(client: TestClient, body: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """What the sink gets, and its tags."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request_id = client.post(QUEUE, content=data).headers["X-Eas-Queueservice-Request-Id"]
    wanted = {"requestId": request_id, "_raw_": "false", "_timeout_": "60s"}
    (item,) = client.get(f"{QUEUE}/sink", params=wanted).json()
    return json.loads(base64.b64decode(item["data"])), item["tags"]


def test_a_portrait_is_answered_as_jpeg_and_drawn_with_the_credential(
    client: TestClient, photos: PhotoServer, webui: WebuiStub
):
    url = photos.of("stranger")[0]
    response = signed(client, {"action": "AIGCImageCreate", "model_id": ANN, "template_image": url})
    assert told(response) == (200, "OK", "success")
    data = response.json()["data"]
    assert list(data)[:3] == ["cost_time", "image", "model_id"]
    assert data["model_id"] == ANN
    assert data["image"].startswith("/9j/4AAQ")
    assert Image.open(io.BytesIO(base64.b64decode(data["image"]))).size == (320, 320)
    assert [each["steps"] for each in webui.passes] == [50, 30]
    assert webui.credentials[-1] == "secret words"
    first = webui.passes[0]
    assert first["denoising_strength"] == 0.45
    assert (first["width"], first["height"]) == (128, 128)
    assert f"<lora:{ANN}:0.9>" in first["prompt"]
    assert first["sampler_name"] == "DPM++ 2M SDE"
    assert "sd_model_checkpoint" not in first["override_settings"]


def test_a_pass_elsewhere_is_not_called_interrupted_for_another_job(
    client: TestClient, photos: PhotoServer, webui: WebuiStub
):
    state = {"interrupted": True, "job_count": 0}
    webui.listings["/sdapi/v1/progress?skip_current_image=true"] = {"state": state}
    url = photos.of("stranger")[0]
    response = signed(client, {"action": "AIGCImageCreate", "model_id": ANN, "template_image": url})
    warnings = response.json()["data"].get("warnings", [])
    assert not any(told.startswith("interrupted: ") for told in warnings)


def test_the_queue_answers_png_that_is_the_templates_outside_the_crop(
    client: TestClient, photos: PhotoServer, webui: WebuiStub
):
    template = np.pad(pixels("stranger"), ((0, 200), (300, 0), (0, 0)), mode="edge")
    data = io.BytesIO()
    Image.fromarray(template).save(data, "PNG")
    photos.files["wide"] = data.getvalue()
    asked = {
        "request_id": 5,
        "images": [],
        "template_image": f"{photos.url}/wide",
        "configure": {"user_id": "ann", **PLAIN},
    }
    body, _ = queued(client, asked)
    assert (body["request_id"], body["code"], body["message"]) == ("5", "OK", "success")
    assert list(body["data"])[:3] == ["user_id", "image", "cost_time"]
    assert body["data"]["image"].startswith("iVBORw0KGgo")
    rgb = np.asarray(Image.open(io.BytesIO(base64.b64decode(body["data"]["image"]))))
    changed = (rgb != template).any(axis=2)
    assert 0 < changed.mean() < 0.25
    assert not changed[:, :250].any()
    assert not changed[350:].any()


def test_several_persons_are_told_by_their_ids(
    client: TestClient, photos: PhotoServer, webui: WebuiStub
):
    url = photos.of("two")[0]
    body = {"model_ids": [ANN, BOB], "model_id": "", "template_image": url, "configure": PLAIN}
    response = signed(client, body)
    assert told(response) == (200, "OK", "success")
    assert response.json()["data"]["model_id"] == f"{ANN},{BOB}"
    assert len(webui.passes) == 5


def test_an_unchanged_wire_is_kept_when_the_models_are_listed(
    client: TestClient, photos: PhotoServer, webui: WebuiStub
):
    webui.listings |= {
        "/controlnet/model_list": {"model_list": ["control_v11p_sd15_canny [d14c016b]"]},
        "/sdapi/v1/loras": [{"name": ANN, "alias": ANN}, {"name": "FilmVelvia3", "alias": ""}],
    }
    url = photos.of("stranger")[0]
    response = signed(client, {"model_id": ANN, "template_image": url, "configure": PLAIN})
    assert told(response) == (200, "OK", "success")
    (unit,) = webui.passes[0]["alwayson_scripts"]["controlnet"]["args"]
    assert unit["model"] == "control_v11p_sd15_canny [d14c016b]"
    assert (unit["module"], unit["weight"], unit["enabled"]) == ("canny", 0.5, True)
    assert "<lora:FilmVelvia3:0.65>" in webui.passes[0]["prompt"]
    webui.listings["/sdapi/v1/loras"] = [{"name": "other", "alias": "other"}]
    response = signed(client, {"model_id": ANN, "template_image": url, "configure": PLAIN})
    fault = faults.MODEL_ID_MALFORMED
    assert told(response) == (fault.status, fault.code, fault.text)


def test_refused_units_are_left_out_with_a_warning(
    client: TestClient, photos: PhotoServer, webui: WebuiStub
):
    webui.listings["/controlnet/model_list"] = {"model_list": ["control_v11p_sd15_canny"]}
    webui.failures[1] = 422, b'{"detail": "the unit is no good"}'
    url = photos.of("stranger")[0]
    response = signed(client, {"model_id": ANN, "template_image": url, "configure": PLAIN})
    assert told(response) == (200, "OK", "success")
    warnings = response.json()["data"]["warnings"]
    assert any("the unit is no good" in each for each in warnings)
    assert "alwayson_scripts" not in webui.passes[1]


NO_TEXT = {"model_id": ANN, "template_image": "{stranger}"}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"no body", faults.INVALID_CREATE),
        ({**NO_TEXT, "configure": {"sharp_ratio": "much"}}, faults.INVALID_CREATE),
        ({"model_id": ANN}, faults.NO_TEMPLATE),
        ({"model_id": ANN, "template_image": "t2i_generate"}, faults.NO_TEMPLATE),
        ({"model_id": "../x", "template_image": "{stranger}"}, faults.MODEL_ID_MALFORMED),
        ({"model_id": str(uuid.uuid4()), "template_image": "{stranger}"}, faults.NOT_TRAINED),
        ({"model_id": THEIRS, "template_image": "{stranger}"}, faults.NOT_TRAINED),
        ({"model_ids": [ANN, THEIRS], "template_image": "{two}"}, faults.NOT_TRAINED),
        ({"model_id": HARMED, "template_image": "{stranger}"}, faults.FACE_ID_UNREADABLE),
        ({"model_id": ANN, "template_image": "{html}"}, faults.TEMPLATE_UNREADABLE),
        ({"model_id": ANN, "template_image": "xx.jpg"}, faults.TEMPLATE_UNREADABLE),
        ({"model_id": ANN, "template_image": "{nobody}"}, faults.NO_FACE),
        ({"model_ids": [ANN], "template_image": "{two}"}, faults.FACE_COUNT),
        ({"model_ids": [ANN, BOB], "template_image": "{stranger}"}, faults.FACE_COUNT),
        (
            {**NO_TEXT, "model_id": "", "configure": {"ipa_control_only": True}},
            faults.NOT_TRAINED,
        ),
    ],
    ids=str,
)
def test_what_a_call_does_wrong_has_its_row(
    client: TestClient, photos: PhotoServer, webui: WebuiStub, body: Any, fault: Fault
):
    if isinstance(body, dict) and str(body.get("template_image")).startswith("{"):
        body = body | {"template_image": photos.of(body["template_image"].strip("{}"))[0]}
    assert told(signed(client, body)) == (fault.status, fault.code, fault.text)
    assert webui.passes == []


FAILURES = {
    "status": (500, b"oops"),
    "no json": (200, b"<html>"),
    "no picture": (200, b'{"images": []}'),
    "broken picture": (200, b'{"images": ["AAAA"]}'),
    "refused": (404, b'{"detail": "Not Found"}'),
}


ROWS = [
    *((failure, 1, faults.FIRST_DIFFUSION) for failure in FAILURES),
    ("status", 2, faults.SECOND_DIFFUSION),
    ("status", 3, faults.THIRD_DIFFUSION),
]


@pytest.mark.parametrize(("failure", "number", "fault"), ROWS)
def test_a_failing_web_ui_is_told_by_the_pass(
    client: TestClient,
    photos: PhotoServer,
    webui: WebuiStub,
    failure: str,
    number: int,
    fault: Fault,
):
    webui.failures[number] = FAILURES[failure]
    configure = {**PLAIN, "background_restore": True}
    url = photos.of("stranger")[0]
    response = signed(client, {"model_id": ANN, "template_image": url, "configure": configure})
    assert told(response) == (fault.status, fault.code, fault.text)
    assert response.json()["data"] == {}


def test_a_failure_goes_into_the_sink_with_its_status(
    client: TestClient, photos: PhotoServer, webui: WebuiStub
):
    webui.failures[1] = 500, b""
    url = photos.of("stranger")[0]
    asked = {"request_id": "r", "template_image": url, "configure": {"user_id": "ann"}}
    body, tags = queued(client, asked)
    text = faults.FIRST_DIFFUSION.text
    assert body == {"request_id": "r", "code": "error", "message": text, "data": {}}
    assert tags["lastCode"] == "469"


def test_a_web_ui_that_hangs_or_is_gone_fails_in_time(
    client: TestClient, photos: PhotoServer, webui: WebuiStub, monkeypatch: pytest.MonkeyPatch
):
    def drawn(url: str) -> None:
        drawer = remote.RemoteDrawer(url, "=", timeout_s=2.0)

        async def inventory() -> None:
            assert (await drawer.inventory()).control_models == ()

        anyio.run(inventory)
        with pytest.raises(remote.DrawingFailed):
            anyio.run(drawer.improve, pixels("stranger"), {})

    webui.failures[1] = 30.0
    drawn(webui.url)
    drawn("http://127.0.0.1:1")
    assert webui.credentials[-1] is None


def test_creation_writes_no_file_so_a_full_disk_does_not_stop_it(
    client: TestClient, photos: PhotoServer, webui: WebuiStub
):
    data_dir: Path = client.app.state.services.settings.data_dir  # pyright: ignore
    before = set(data_dir.rglob("*"))
    url = photos.of("stranger")[0]
    response = signed(client, {"model_id": ANN, "template_image": url, "configure": PLAIN})
    assert told(response) == (200, "OK", "success")
    after = set(data_dir.rglob("*"))
    assert {path.name for path in after - before} <= {"sdapi.db-wal", "sdapi.db-shm"}
