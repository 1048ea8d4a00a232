"""The documents' creation programs with their real clients, and a server that dies."""

import base64
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import requests

from sdapi.app import build_app
from sdapi.portrait.state.records import Account, owner_of
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.settings import Settings
from tests.eas_client import client_python
from tests.fakes import FakeEngines
from tests.photo_server import PhotoServer, photo_server
from tests.portraits.people import pixels
from tests.portraits.portrait_models import add_person, picture, png
from tests.portraits.webui_stub import WebuiStub, webui_stub
from tests.servers import listening, server_process, wait_ready

#: each client has an environment of its own, which takes a while to make
pytestmark = pytest.mark.slow

APP, TOKEN = "20230001", "0123456789abcdef0123456789abcdef"
AI_SERVICE = Path(__file__).parents[2] / "requirements-ai-service-client.txt"
ANN, BOB, LARGE = (str(uuid.UUID(int=number)) for number in (1, 2, 3))

CREATE_SINGLE = """
import base64
from ai_service_python_sdk.client.api.ai_service_aigc_images_api import \\
    AIGCImagesApi  # noqa: E501
from ai_service_python_sdk.client.api_client import ApiClient

host    = %r
appId 	= %r
token 	= %r

client  = ApiClient(host, appId, token)
api     = AIGCImagesApi(client)  # noqa: E501

response = api.aigc_images_create(
    %r,
    %r,
    %r, %r
)
request_id = response.request_id
code = response.code
message = response.message
data = response.data
image = data['image']
image_bytes = base64.b64decode(image)
import json
print(json.dumps([code, message, data['model_id'], image[:8], len(image_bytes)]))
"""
CREATE_MULTI = CREATE_SINGLE.replace(
    "aigc_images_create(", "aigc_images_create_by_multi_model_ids("
)
QUEUE_CREATE = """
import json
from eas_prediction import QueueClient
endpoint, token, template = %r, %r, %r
input_queue = QueueClient(endpoint, 'photog_pre_pmml')
input_queue.set_token(token)
input_queue.init()
datas = json.dumps({
   'request_id' : 12345,
   'images' : [],
   'template_image' : template,
   'configure' : {
        'user_id' : 'zhoumo',
        'sex' : 'secret',
        'first_diffusion_steps' : 50,
        'first_denoising_strength' : 0.45,
        'second_diffusion_steps' : 20,
        'second_denoising_strength' : 0.30,
        'more_like_me_before' : 0.50,
        'more_like_me' : 0.50,
        'mask_region' : 'edge',
        'crop_face_preprocess' : True,
        'apply_face_fusion_before' : True,
        'apply_face_fusion_after' : True,
        'color_shift_middle' : True,
        'color_shift_last' : True,
        'background_restore' : False,
        'skin_retouching_bool' : True,
        'photo_enhancement_bool' : True,
        'photo_enhancement_method' : 'photo_fix',
        'makeup_transfer' : False,
        'makeup_transfer_ratio' : 0.50,
    }
})
index, request_id = input_queue.put(f'{datas}')
sink_queue = QueueClient(endpoint, 'photog_pre_pmml/sink')
sink_queue.set_token(token)
sink_queue.init()
watcher = sink_queue.watch(0, 5, auto_commit=False)
for x in watcher.run():
    print(x.data.decode('utf-8'))
    sink_queue.commit(x.index)
    watcher.close()
    break
"""


@pytest.fixture(scope="module")
def photos() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


@pytest.fixture
def webui() -> Iterator[WebuiStub]:
    with webui_stub() as stub:
        stub.invention = base64.b64encode(png(picture(33, side=320))).decode()
        yield stub


async def fill(settings: Settings) -> None:
    store = SqlitePortraitStore(settings.state_file)
    await store.open()
    await store.add_account(Account(APP, TOKEN))
    await store.close()
    owner = owner_of(APP)
    await add_person(settings, ANN, pixels("person_0"), owner=owner)
    await add_person(settings, BOB, pixels("stranger"), owner=owner)
    await add_person(settings, LARGE, pixels("person_0"), owner=owner, kind="xl")
    await add_person(settings, "zhoumo", pixels("person_0"))


@pytest.fixture
def server(tmp_path: Path, webui: WebuiStub) -> Iterator[str]:
    settings = Settings(
        data_dir=tmp_path,
        allow_private_urls=True,
        portrait_processes=1,
        portrait_url=webui.url,
        portrait_native_size=128,
        portrait_checkpoint_xl="sdxl",
        token="queue-token",
    )
    anyio.run(fill, settings)
    with listening(build_app(settings, FakeEngines()), settings) as url:
        yield url


def said_by(python: Path, program: str) -> Any:
    """What a client's program prints, as JSON."""
    done = subprocess.run(
        [str(python), "-c", program], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_ai_service_sdk_creates_every_kind_of_portrait(
    server: str, photos: PhotoServer, webui: WebuiStub
):
    python = client_python(AI_SERVICE)
    person, template, pair = photos.of("person_1", "stranger", "two")
    prompt = "(portrait:1.5), 1girl, bokeh, bouquet, brown_hair, cloud, flower, outdoors"
    only = {"ipa_control_only": True, "ipa_weight": 0.6, "ipa_image_path": person}
    asked: list[tuple[str, Any, str, str, Any]] = [
        (CREATE_SINGLE, ANN, template, "", None),
        (CREATE_SINGLE, ANN, template, "", {"more_like_me": 1, "second_denoising_strength": 1}),
        (CREATE_MULTI, [ANN, ANN], pair, "", None),
        (CREATE_MULTI, [ANN, BOB], pair, "", {}),
        (CREATE_SINGLE, LARGE, template, "create_xl", {}),
        (CREATE_SINGLE, "", template, "", only),
        (CREATE_SINGLE, ANN, template, "", {"t2i_prompt": prompt}),
        (CREATE_SINGLE, "", template, "", only | {"t2i_prompt": prompt}),
    ]
    for program, ids, url, model_name, configure in asked:
        text = program % (server, APP, TOKEN, ids, url, model_name, configure)
        code, message, model_id, start, size = said_by(python, text)
        assert (code, message, start) == ("OK", "success", "/9j/4AAQ")
        assert model_id == (",".join(ids) if isinstance(ids, list) else ids)
        assert size > 1000


def test_the_queue_client_creates_a_portrait(server: str, photos: PhotoServer):
    endpoint = server.removeprefix("http://")
    program = QUEUE_CREATE % (endpoint, "queue-token", photos.of("stranger")[0])
    result = said_by(client_python(), program)
    assert (result["request_id"], result["code"], result["message"]) == ("12345", "OK", "success")
    assert result["data"]["user_id"] == "zhoumo"
    assert result["data"]["image"].startswith("iVBORw0KGgo")


SERVICE = {
    "metadata": {"name": "photog_pre_pmml", "type": "Async"},
    "queue": {"max_delivery": 2, "sink": {"max_payload_size_kb": 20480}},
    "containers": [{"image": "x/photog_pub:infer.1.0.0.pub", "port": 7861}],
}


def test_a_portrait_whose_server_is_killed_is_made_by_the_next(
    tmp_path: Path, photos: PhotoServer, webui: WebuiStub
):
    data = tmp_path / "data"
    anyio.run(fill, Settings(data_dir=data))
    service = tmp_path / "service.json"
    service.write_text(json.dumps(SERVICE))
    flags = ["--allow-private-urls", f"--portrait-url={webui.url}", f"--eas-config={service}"]
    body = {
        "request_id": 1,
        "template_image": photos.of("stranger")[0],
        "configure": {"user_id": "zhoumo"},
    }
    webui.failures[2] = 600.0
    with server_process(data, *flags) as running:
        answer = requests.post(f"{running.url}/api/predict/photog_pre_pmml", json=body, timeout=10)
        assert answer.status_code == 200
        wait_ready(lambda: len(webui.passes) == 2, 60.0)
        running.process.kill()
        running.process.wait(10)
    with server_process(data, *flags) as running:
        sink = f"{running.url}/api/predict/photog_pre_pmml/sink"
        result = requests.get(f"{sink}?_timeout_=60s", timeout=90)
        assert result.status_code == 200
        assert result.json().get("code") == "OK", result.text[:500]
    assert len(webui.passes) == 4
    assert not list((data / "portrait").rglob(".draft*"))
