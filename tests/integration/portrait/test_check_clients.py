"""The check programs of the product's documents, unmodified but for host, ids and photos."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from sdapi.app import build_app
from sdapi.portrait.state.records import Account
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.settings import Settings
from tests.eas_client import client_python
from tests.fakes import FakeEngines
from tests.photo_server import PhotoServer, photo_server
from tests.portraits.people import PERSON
from tests.servers import listening

#: each client has an environment of its own, which takes a while to make
pytestmark = pytest.mark.slow

APP, TOKEN = "20230001", "0123456789abcdef0123456789abcdef"
AI_SERVICE = Path(__file__).parents[2] / "requirements-ai-service-client.txt"

REST_CHECK = """
from ai_service_python_sdk.client.api_client import ApiClient
from ai_service_python_sdk.client.api.ai_service_aigc_images_api import AIGCImagesApi

host = '%s'
appId = '%s'
token = '%s'

client  = ApiClient(host, appId, token)
api    = AIGCImagesApi(client)  # noqa: E501

images = %r
response = api.aigc_images_check(images, '', None)

request_id = response.request_id
code = response.code
message = response.message
data = response.data
import json
print(json.dumps([request_id, code, message, data]))
"""

REST_JOB = """
from ai_service_python_sdk.client.api_client import ApiClient
from ai_service_python_sdk.client.api.ai_service_job_api import AiServiceJobApi
from ai_service_python_sdk.client.rest import ApiException

client = ApiClient('%s', '%s', '%s')
ai_service_job_api = AiServiceJobApi(client)
try:
    result = ai_service_job_api.get_async_job(11002)
except ApiException as error:
    import json
    print(json.dumps([error.status, json.loads(error.body)]))
"""

QUEUE_CHECK = """
import json
from eas_prediction import QueueClient
endpoint, token, images = '%s', '%s', %r
# Create an input queue object to receive input data.
input_queue = QueueClient(endpoint, 'photog_check')
input_queue.set_token(token)
input_queue.init()
datas = json.dumps({
    'request_id' : 12345,
    'images' : images,  # urls, a list
    'configure' : {
        'face_reconize' : True,  # Judge whether all pictures are of a person
    }
})
index, request_id = input_queue.put(f'{datas}')
attrs = input_queue.attributes()
sink_queue = QueueClient(endpoint, 'photog_check/sink')
sink_queue.set_token(token)
sink_queue.init()
print(sink_queue.get(request_id, auto_delete=True)[0].data.decode('utf-8'))
"""


@pytest.fixture(scope="module")
def photos() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("portrait"),
        allow_private_urls=True,
        portrait_processes=1,
        token="queue-token",
    )

    async def add_account() -> None:
        store = SqlitePortraitStore(settings.state_file)
        await store.open()
        await store.add_account(Account(APP, TOKEN))
        await store.close()

    anyio.run(add_account)
    with listening(build_app(settings, FakeEngines()), settings) as url:
        yield url


def said_by(python: Path, program: str) -> Any:
    """What a client's program prints, as JSON."""
    done = subprocess.run(
        [str(python), "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_ai_service_sdk_checks_photos(server: str, photos: PhotoServer):
    urls = photos.of(*PERSON[:2], "stranger", "two", "missing")
    python = client_python(AI_SERVICE)
    request_id, code, message, data = said_by(python, REST_CHECK % (server, APP, TOKEN, urls))
    assert (code, message) == ("OK", "success")
    assert data["request_id"] == request_id
    assert [result["code"] for result in data["check_results"]] == [1, 1, 6, 3, 2]
    status, body = said_by(python, REST_JOB % (server, APP, TOKEN))
    assert (status, body["message"]) == (404, "job not found")
    status, body = said_by(python, REST_JOB % (server, APP, TOKEN[::-1]))
    assert (status, body["message"]) == (401, "sign error")


def test_the_queue_client_checks_photos(server: str, photos: PhotoServer):
    urls = photos.of(*PERSON[:3], "stranger", "missing")
    endpoint = server.removeprefix("http://")
    result = said_by(client_python(), QUEUE_CHECK % (endpoint, "queue-token", urls))
    assert (result["request_id"], result["code"]) == ("12345", "OK")
    assert result["data"]["request_id"] == 12345
    assert [one["code"] for one in result["data"]["check_results"]] == [1, 1, 1, 6, 2]
