"""The programs that the EAS documentation prints, run against a real server.

They are as printed but for host, token, folders, and the indentation that the document lost; and
for their sizes, which the quick variants reduce. `-m slow` runs them with the document's own.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.servers import GOLDEN, ServerProcess, server_process

TOKEN = "MTIzNDU2Nzg5MA=="

CURL = """
curl --location --request POST '<service_url>/sdapi/v1/txt2img' \\
--header 'Authorization: <token>' \\
--header 'Content-Type: application/json' \\
--data-raw '{
    "prompt":"cut dog ",
    "steps":20
}'
"""

BASE64_CLIENT = """
import requests
import io
import base64
from PIL import Image, PngImagePlugin

url = "<service_url>"

payload = {
    "prompt": "puppy dog",
    "steps": 20,
    "n_iter": 2
}

session = requests.session()
session.headers.update({"Authorization": "<token>"})

response = session.post(url=f'{url}/sdapi/v1/txt2img', json=payload)
if response.status_code != 200:
    raise Exception(response.content)

data = response.json()

# You can obtain the Base64-encoded image by using the synchronous request.
for idx, im in enumerate(data['images']):
    image = Image.open(io.BytesIO(base64.b64decode(im.split(",", 1)[0])))

    png_payload = {
        "image": "data:image/png;base64," + im
    }
    resp = session.post(url=f'{url}/sdapi/v1/png-info', json=png_payload)

    pnginfo = PngImagePlugin.PngInfo()
    pnginfo.add_text("parameters", resp.json().get("info"))
    image.save(f'output-{idx}.png', pnginfo=pnginfo)
"""

#: up to its download lines, which need a bucket
URL_CLIENT = """
import requests

url = "<service_url>"
# The mount_path for OSS that you specified when you deploy the model in EAS.
mount_path = "<mount>"
# The OSS address that you specified when you deploy the model in EAS.
oss_url = "oss://examplebucket/data-oss"

payload = {
    "alwayson_scripts": {
        "sd_model_checkpoint": "deliberate_v2.safetensors",
        "save_dir": "<mount>/outputs"
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
print(data['parameters']['seed'])
"""

SMALLER = [
    ('"steps":20', '"steps":2, "width":64, "height":64'),
    ('"steps": 20', '"steps": 2, "width": 64, "height": 64'),
    ('"steps": 30', '"steps": 2'),
    ('"width": 576', '"width": 72'),
    ('"height": 576', '"height": 72'),
]
SIZES = [
    pytest.param(True, id="reduced"),
    pytest.param(False, id="as printed", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A server as the document deploys it, and a folder in which its clients run."""

    server: ServerProcess
    mount: Path
    work: Path

    def filled_in(self, program: str, *, is_reduced: bool) -> str:
        changes = [
            ("<service_url>", self.server.url),
            ("<token>", TOKEN),
            ("<mount>", str(self.mount)),
            *(SMALLER if is_reduced else ()),
        ]
        for old, new in changes:
            program = program.replace(old, new)
        return program

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.work, capture_output=True, text=True, timeout=1700, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    root = tmp_path_factory.mktemp("eas")
    models = root / "data-nas" / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    for suffix in ("safetensors", "yaml"):
        source = GOLDEN / "models" / f"tinyA.{suffix}"
        shutil.copyfile(source, models / f"deliberate_v2.{suffix}")
    work = root / "work"
    work.mkdir()
    mount = root / "data-oss"
    with server_process(root / "data-nas", "--token", TOKEN, "--mount", mount) as server:
        yield Deployment(server, mount, work)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("is_reduced", SIZES)
def test_synchronous_curl(deployment: Deployment, is_reduced: bool):
    program = deployment.filled_in(CURL, is_reduced=is_reduced).strip()
    answer = json.loads(deployment.run("bash", "-c", program))
    assert len(answer["images"]) == 1
    assert json.loads(answer["info"])["prompt"] == "cut dog "


@pytest.mark.parametrize("is_reduced", SIZES)
def test_client_that_decodes_pictures_and_asks_for_their_text(
    deployment: Deployment, is_reduced: bool
):
    for old in deployment.work.glob("output-*.png"):
        old.unlink()
    program = deployment.filled_in(BASE64_CLIENT, is_reduced=is_reduced)
    deployment.run(sys.executable, "-c", program)
    outputs = sorted(deployment.work.glob("output-*.png"))
    assert len(outputs) == 2
    for path in outputs:
        with Image.open(path) as picture:
            assert picture.info["parameters"].startswith("puppy dog\nSteps: ")


@pytest.mark.parametrize("is_reduced", SIZES)
def test_url_mode_client_up_to_its_download(deployment: Deployment, is_reduced: bool):
    program = deployment.filled_in(URL_CLIENT, is_reduced=is_reduced)
    *lines, seeds = deployment.run(sys.executable, "-c", program).splitlines()
    first, second = (int(seed) for seed in seeds.split(","))
    assert second == first + 1
    rows = [line.split() for line in lines]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert "/outputs/txt2img-grids/" in rows[0][1]
    side = 72 if is_reduced else 576
    for (_, path, url), size in zip(
        rows, [(2 * side, side), (side, side), (side, side)], strict=True
    ):
        assert url == path.replace(str(deployment.mount), "oss://examplebucket/data-oss")
        with Image.open(path) as picture:
            assert picture.size == size
    assert rows[1][1].endswith(f"-{first}.png")
    assert rows[2][1].endswith(f"-{second}.png")


def test_without_its_token_a_client_gets_nowhere(deployment: Deployment):
    program = deployment.filled_in(URL_CLIENT, is_reduced=True).replace(TOKEN, "wrong")
    with pytest.raises(AssertionError, match="Invalid authentication credentials"):
        deployment.run(sys.executable, "-c", program)
