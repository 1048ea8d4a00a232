"""The asynchronous programs that the EAS documentation prints.

They are as printed but for host, token, folders and sizes, the indentation that the document lost,
and the download from a bucket.
"""

import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from PIL import Image

from sdapi.app import build_app
from sdapi.settings import Mount, Settings
from tests.eas_client import client_python
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import listening

TOKEN = "MTIzNDU2Nzg5MA=="

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
        "steps": 2, "width": 64, "height": 64,
        "alwayson_scripts": {
            "save_dir": "/code/stable-diffusion-webui/data-oss/outputs/txt2img"
        },
    }
    response = session.post(url=f'{url}/sdapi/v1/txt2img?task_id=txt2img_{i}', json=payload)
    if response.status_code != 200:
        exit(f"send request error:{response.content}")
    else:
        print(f"send {p} success, index is {response.content}")

for i in range(5):
    p = prompts[i % len(prompts)]
    payload = {
        "prompt": p,
        "steps": 2, "width": 64, "height": 64,
        "alwayson_scripts": {
            "save_dir": "/code/stable-diffusion-webui/data-oss/outputs/img2img",
            "image_link": "<image>",
        },
    }
    response = session.post(url=f'{url}/sdapi/v1/img2img?task_id=img2img_{i}', json=payload)
    if response.status_code != 200:
        exit(f"send request error:{response.content}")
    else:
        print(f"send {p} success, index is {response.content}")
"""

WATCH = """
import json
from eas_prediction import QueueClient

sink_queue = QueueClient('<endpoint>', 'sd_async/sink')
sink_queue.set_token('<token>')
sink_queue.init()

mount_path = "/code/stable-diffusion-webui/data-oss"
oss_url = "oss://<examplebucket>/aohai-singapore"

watcher = sink_queue.watch(0, 5, auto_commit=False)

for x in watcher.run():
    if 'task_id' in x.tags:
        print('index {} task_id is {}'.format(x.index, x.tags['task_id']))

    sink_queue.commit(x.index)

    try:
        data = json.loads(x.data.decode('utf-8'))
        for idx, path in enumerate(data['parameters']['image_url'].split(',')):
            url = path.replace(mount_path, oss_url)
            print(f'save {url} to {x.index}-output-{idx}.png')
    except Exception as e:
        print(f'index {x.index} process data error {e}')
    if x.index == 10:
        break
"""


class Pictures(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


def test_ten_requests_are_watched_in_their_order_with_paths_as_the_client_spelled_them(
    tmp_path: Path,
):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "boy.png")
    (tmp_path / "models/Stable-diffusion").mkdir(parents=True)
    (tmp_path / "models/Stable-diffusion/one.safetensors").write_bytes(b"weights")
    folder = tmp_path / "mounts/data-oss"
    settings = Settings(
        data_dir=tmp_path,
        token=TOKEN,
        allow_private_urls=True,
        mounts=(Mount(Path("/code/stable-diffusion-webui/data-oss"), folder=folder),),
    )
    app = build_app(settings, FakeEngines(FakeEngine()))
    pictures = ThreadingHTTPServer(("127.0.0.1", 0), partial(Pictures, directory=str(tmp_path)))
    with pictures, listening(app, settings) as url:
        Thread(target=pictures.serve_forever, args=(0.05,), daemon=True).start()
        image = f"http://127.0.0.1:{pictures.server_address[1]}/boy.png"
        changes = {
            "<service_url>": f"{url}/api/predict/sd_async",
            "<endpoint>": url,
            "<token>": TOKEN,
            "<image>": image,
        }
        sent = run(Path(sys.executable), PUT, changes)
        watched = run(client_python(), WATCH, changes)
        pictures.shutdown()
    assert sent.splitlines()[0] == "send cute dog success, index is b'1'"
    names = [f"{kind}_{number}" for kind in ("txt2img", "img2img") for number in range(5)]
    lines = watched.splitlines()
    assert lines[::2] == [f"index {n} task_id is {name}" for n, name in enumerate(names, 1)]
    prefix = "save oss://<examplebucket>/aohai-singapore/outputs/"
    assert all(line.startswith(prefix) for line in lines[1::2])
    assert len(list(folder.rglob("*.png"))) == 10


def run(python: Path, program: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        program = program.replace(old, new)
    done = subprocess.run(
        [str(python), "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout
