"""The documents' programs that read results from a bucket, and nothing changed in them.

But for what their readers fill in (addresses, keys, the bucket, sizes) and the indentation that the
document lost.
"""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from sdapi.app import build_app
from sdapi.settings import Mount, Settings
from tests.eas_client import client_python
from tests.fakes import FakeEngine, FakeEngines
from tests.oss.server import KEY, OssServer, oss_server
from tests.servers import listening, wait_ready

TOKEN = "MTIzNDU2Nzg5MA=="
BUCKET = "examplebucket"
MOUNT = "/code/stable-diffusion-webui/data-oss"

SYNCHRONOUS = """
import requests
import oss2

url = "<service_url>"
# The mount_path for OSS that you specified when you deploy the model in EAS.
mount_path = "/code/stable-diffusion-webui/data-oss"
# The OSS address that you specified when you deploy the model in EAS.
oss_url = "oss://examplebucket/data-oss"

auth = oss2.Auth('<yourAccessKeyId>', '<yourAccessKeySecret>')
# In this example, the endpoint of the China (Hangzhou) region is used.
bucket = oss2.Bucket(auth, '<endpoint>', '<examplebucket>')

payload = {
    "alwayson_scripts": {
        "sd_model_checkpoint": "deliberate_v2.safetensors",
        "save_dir": "/code/stable-diffusion-webui/data-oss/outputs"
    },
    "steps": 30,
    "prompt": "girls",
    "batch_size": 1,
    "n_iter": 2,
    "width": 576,
    "height": 576,
    "negative_prompt": "ugly, out of frame"
}

session = requests.session()
session.headers.update({"Authorization": "<token>"})

response = session.post(url=f'{url}/sdapi/v1/txt2img', json=payload)
if response.status_code != 200:
    raise Exception(response.content)

data = response.json()

for idx, path in enumerate(data['parameters']['image_url'].split(',')):
    url = path.replace(mount_path, oss_url)
    print(idx, path, url)

    # Download the object from OSS to the local memory.
    bucket.get_object_to_file(url[len("oss://<examplebucket>/"):], f'output-{idx}.png')
"""

PUT = """
import requests

url = "<service_url>"
session = requests.session()
session.headers.update({"Authorization": "<token>"})

prompts = ["cute dog", "cute cat", "cute girl"]

for i in range(5):
    p = prompts[i % len(prompts)]
    payload = {
        "prompt": p,
        "steps": 20,
        "alwayson_scripts": {
            "save_dir": "/code/stable-diffusion-webui/data-oss/outputs/txt2img"
        },
    }
    response = session.post(url=f'{url}/sdapi/v1/txt2img?task_id=txt2img_{i}', json=payload)
    if response.status_code != 200:
        exit(f"send request error:{response.content}")
    else:
        print(f"send {p} success, index is {response.content}")
"""

WATCH = """
import json
import oss2
from eas_prediction import QueueClient

sink_queue = QueueClient('<queue_endpoint>', 'sd_async/sink')
sink_queue.set_token('<token>')
sink_queue.init()

mount_path = "/code/stable-diffusion-webui/data-oss"
oss_url = "oss://<examplebucket>/aohai-singapore"
auth = oss2.Auth('<yourAccessKeyId>', '<yourAccessKeySecret>')
bucket = oss2.Bucket(auth, '<endpoint>', '<examplebucket>')

watcher = sink_queue.watch(0, 5, auto_commit=False)

for x in watcher.run():
    if 'task_id' in x.tags:
        print('index {} task_id is {}'.format(x.index, x.tags['task_id']))

    print(f'index {x.index} data is {x.data}')

    sink_queue.commit(x.index)

    try:
        data = json.loads(x.data.decode('utf-8'))
        for idx, path in enumerate(data['parameters']['image_url'].split(',')):
            url = path.replace(mount_path, oss_url)
            # Download the object from OSS to an on-premises memory.
            bucket.get_object_to_file(url[len("oss://<examplebucket>/"):], f'{x.index}-output-{idx}.png')
            print(f'save {url} to {x.index}-output-{idx}.png')
    except Exception as e:
        print(f'index {x.index} process data error {e}')
"""  # noqa: E501 (as it is printed)


@pytest.fixture
def oss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OssServer]:
    with oss_server(tmp_path / "buckets") as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def settings_of(tmp_path: Path, prefix: str) -> Settings:
    models = tmp_path / "data" / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    (models / "deliberate_v2.safetensors").write_bytes(b"weights")
    mount = Mount(Path(MOUNT), f"oss://{BUCKET}/{prefix}")
    return Settings(data_dir=tmp_path / "data", token=TOKEN, mounts=(mount,))


def filled_in(program: str, url: str, oss: OssServer) -> str:
    for name, value in {
        "<service_url>": url,
        "<queue_endpoint>": url.partition("/api/")[0],
        "<token>": TOKEN,
        "<yourAccessKeyId>": KEY.id,
        "<yourAccessKeySecret>": KEY.secret,
        "<endpoint>": oss.endpoint,
        "<examplebucket>": BUCKET,
    }.items():
        program = program.replace(name, value)
    return program


def assert_same_bytes(path: Path, oss: OssServer, key: str) -> None:
    data = path.read_bytes()
    assert data == oss.objects.data(BUCKET, key)
    Image.open(io.BytesIO(data)).load()


def test_synchronous_client_reads_its_pictures_from_the_bucket(
    tmp_path: Path, oss: OssServer, work: Path
):
    settings = settings_of(tmp_path, "data-oss")
    with listening(build_app(settings, FakeEngines(FakeEngine())), settings) as url:
        done = subprocess.run(
            [sys.executable, "-c", filled_in(SYNCHRONOUS, url, oss)],
            cwd=work,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    for number, (_, _, found) in enumerate(rows):
        key = found.removeprefix(f"oss://{BUCKET}/")
        assert key.startswith("data-oss/outputs/txt2img-")
        assert_same_bytes(work / f"output-{number}.png", oss, key)


def test_asynchronous_client_reads_its_pictures_from_the_bucket(
    tmp_path: Path, oss: OssServer, work: Path
):
    python = client_python(Path(__file__).parents[2] / "requirements-oss-client.txt")
    settings = settings_of(tmp_path, "aohai-singapore/")
    with listening(build_app(settings, FakeEngines(FakeEngine())), settings) as url:
        watch = [str(python), "-u", "-c", filled_in(WATCH, url, oss)]
        put = filled_in(PUT, f"{url}/api/predict/sd_async", oss)
        with (
            (tmp_path / "watch.log").open("w+") as log,
            subprocess.Popen(watch, cwd=work, stdout=log, stderr=subprocess.STDOUT) as watcher,
        ):
            subprocess.run([sys.executable, "-c", put], timeout=60, check=True)
            try:
                # The program watches for ever.
                wait_ready(lambda: (tmp_path / "watch.log").read_text().count("save oss://") == 5)
            finally:
                watcher.kill()
    lines = [
        line.split()
        for line in (tmp_path / "watch.log").read_text().splitlines()
        if line.startswith("save oss://")
    ]
    for index, (_, found, _, name) in enumerate(lines, 1):
        assert name == f"{index}-output-0.png"
        key = found.removeprefix(f"oss://{BUCKET}/")
        assert key.startswith("aohai-singapore/outputs/txt2img/txt2img-images/")
        assert_same_bytes(work / name, oss, key)
