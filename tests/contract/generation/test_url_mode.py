import errno
import http.server
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdapi.engine.jobs.job import Job
from sdapi.errors import OutOfMemory
from tests.contract.conftest import Serve
from tests.fakes import FakeEngine, colour_of
from tests.photo_server import photo_server
from tests.servers import ROOT

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "seed": 100}


def ask(client: TestClient, kind: str = "txt2img", body: dict[str, Any] | None = None, **eas: Any):
    return client.post(f"/sdapi/v1/{kind}", json=SMALL | (body or {}) | {"alwayson_scripts": eas})


def assert_url_failure(response: Any, status: int, *, id_task: str | None = None) -> str:
    """A failure in URL mode's shape; returns its sentence."""
    assert response.status_code == status, response.text
    body = response.json()
    parameters = body["parameters"]
    assert (body["images"], body["info"]) == ([], "")
    assert (parameters["status"], parameters["image_url"]) == (status, "")
    assert (parameters["seed"], parameters["id_task"]) == ("", id_task)
    assert parameters["error_msg"]
    return parameters["error_msg"]


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()] if folder.exists() else []


def test_pictures_are_files_and_the_answer_names_them_grid_first(serve: Serve, tmp_path: Path):
    client = serve(allow_save_dirs=(tmp_path / "oss",))
    response = ask(
        client, body={"n_iter": 2}, save_dir=f"{tmp_path}/oss/outputs/", id_task="14837", uid="7"
    )
    body = response.json()
    parameters = body["parameters"]
    assert (body["images"], body["info"]) == ([], "")
    assert (parameters["status"], parameters["id_task"]) == (0, "14837")
    assert parameters["seed"] == "100,101"
    assert parameters["total_time"] > 0
    grid, *images = parameters["image_url"].split(",")
    root = re.escape(f"{tmp_path}/oss/outputs")
    day, uuid = r"\d{4}-\d\d-\d\d", r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f-]{17}"
    assert re.fullmatch(rf"{root}/txt2img-grids/{day}/grid-{uuid}\.png", grid)
    for path, seed in zip(images, (100, 101), strict=True):
        assert re.fullmatch(rf"{root}/txt2img-images/{day}/{uuid}-{seed}\.png", path)
        with Image.open(path) as picture:
            assert picture.getpixel((0, 0)) == colour_of(seed)
            assert f"Seed: {seed}" in picture.info["parameters"]


def test_one_picture_has_no_grid_and_nothing_goes_to_outputs(client: TestClient, data_dir: Path):
    response = ask(client, body={"save_images": True}, save_dir="tmp/outputs")
    (path,) = response.json()["parameters"]["image_url"].split(",")
    assert path.startswith(f"{data_dir}/tmp/outputs/txt2img-images/")
    assert files(data_dir / "outputs") == []


def test_id_is_null_without_one(client: TestClient):
    assert ask(client, save_dir="tmp").json()["parameters"]["id_task"] is None


@pytest.mark.parametrize(
    ("save_dir", "status"),
    [
        ("/etc", 403),
        ("../outside", 403),
        ("tmp/../../outside", 403),
        ("link/inside", 403),
        ("models/Stable-diffusion", 403),
        (".git", 403),
        ("file", 422),
        ("file/below", 422),
        ("", 422),
        ("a,b", 422),
        ("x" * 5000, 422),
        ("a\u0000b", 422),
        ("https://bucket/prefix", 422),
    ],
)
def test_folder_that_may_not_be_written_is_refused_before_any_work(
    client: TestClient, data_dir: Path, engine: FakeEngine, save_dir: str, status: int
):
    (data_dir / "link").symlink_to(data_dir.parent)
    (data_dir / "file").touch()
    assert_url_failure(ask(client, save_dir=save_dir), status)
    assert engine.jobs == []


def test_every_failure_has_the_same_shape(client: TestClient, engine: FakeEngine):
    def failing(body: dict[str, Any], **eas: Any) -> Any:
        return ask(client, body=body, save_dir="tmp", id_task="7", **eas)

    assert "steps" in assert_url_failure(failing({"steps": "x"}), 422, id_task="7")
    pairs = {"steps": "x", "alwayson_scripts": [["save_dir", "tmp"], ["id_task", "7"]]}
    assert_url_failure(client.post("/sdapi/v1/txt2img", json=pairs), 422, id_task="7")
    assert_url_failure(failing({"sampler_name": "no"}), 400, id_task="7")
    assert_url_failure(failing({}, sd_model_checkpoint="no"), 422, id_task="7")
    assert_url_failure(failing({}, typo="no"), 422, id_task="7")
    assert_url_failure(failing({"enable_hr": True}), 422, id_task="7")
    engine.failure = lambda job: ZeroDivisionError("secret")
    sentence = assert_url_failure(failing({}), 500, id_task="7")
    assert sentence == "ZeroDivisionError"


@pytest.mark.parametrize("failure", [OutOfMemory("too large"), ZeroDivisionError()])
def test_failure_says_how_long_it_took(
    client: TestClient, engine: FakeEngine, failure: BaseException
):
    def fail(job: Job) -> BaseException:
        time.sleep(0.05)
        return failure

    engine.failure = fail
    assert ask(client, save_dir="tmp").json()["parameters"]["total_time"] >= 0.05


def test_full_disk_leaves_nothing(
    client: TestClient, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    original, count = Path.rename, [0]

    def fail(path: Path, target: Path) -> Path:
        count[0] += 1
        if count[0] == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    sentence = assert_url_failure(ask(client, body={"n_iter": 3}, save_dir="tmp"), 507)
    assert "No space left" in sentence
    assert files(data_dir / "tmp") == []


class Redirect(http.server.BaseHTTPRequestHandler):
    """Sends everyone to itself, or to a picture it must not be asked for."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/again")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def loopback() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirect) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/picture.png"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("with_save_dir", [True, False])
def test_image_link_into_this_machine_is_refused(
    client: TestClient, loopback: str, engine: FakeEngine, with_save_dir: bool
):
    eas = {"save_dir": "tmp"} if with_save_dir else {}
    response = ask(client, "img2img", image_link=loopback, **eas)
    if with_save_dir:
        sentence = assert_url_failure(response, 422)
    else:
        assert (response.status_code, response.json()["code"]) == (422, "invalid_url")
        sentence = response.json()["detail"]
    assert "public address" in sentence
    assert engine.jobs == []


def test_redirect_into_this_machine_is_refused(serve: Serve, loopback: str):
    """The first host is allowed by name, where it redirects to is not."""
    client = serve(allow_url_hosts=("localhost",))
    response = ask(client, "img2img", image_link=loopback.replace("127.0.0.1", "localhost"))
    assert response.status_code == 422
    assert "redirected to http://127.0.0.1" in response.json()["detail"]
    assert "public address" in response.json()["detail"]


@pytest.mark.parametrize("place", ["image_link", "init_images"])
def test_scheme_counts_in_any_case(client: TestClient, loopback: str, place: str):
    url = loopback.replace("http://", "HTTP://")
    if place == "image_link":
        response = ask(client, "img2img", image_link=url)
    else:
        response = ask(client, "img2img", {"init_images": [url]})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_url")
    assert "public address" in response.json()["detail"]


def test_a_url_that_holds_no_picture_is_named_without_its_secrets(serve: Serve):
    with photo_server() as photos:
        url = f"{photos.url}/html?Signature=secret"
        response = ask(serve(allow_private_urls=True), "img2img", image_link=url)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_image")
    named = f"Invalid image url: image_link {photos.url}/html holds no picture"
    assert response.json()["detail"].startswith(named)
    assert "secret" not in response.text


def test_image_link_that_is_no_url_is_no_picture_either(client: TestClient):
    response = ask(client, "img2img", image_link="file:///etc/passwd")
    assert response.status_code == 422
    assert "root:" not in response.text


def test_example_of_the_readme_works_on_a_fresh_server(client: TestClient):
    readme = (ROOT / "README.md").read_text()
    (body,) = re.findall(r"-d '(\{[^']*\"save_dir\"[^']*\})'", readme)
    answer = client.post("/sdapi/v1/txt2img", json=json.loads(body))
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["parameters"]["image_url"].split(",")) == 3


def test_warnings_are_told_beside_the_urls(client: TestClient):
    answer = ask(client, body={"prompt": "a cat <lora:nothere:1>"}, save_dir="nas").json()
    assert answer["parameters"]["status"] == 0
    assert ["nothere" in text for text in answer["warnings"]] == [True]
    lines = [False, False, "start", "a <lora:nothere:1>\nb <lora:nothere:1>"]
    script = {"script_name": "Prompts from file or textbox", "script_args": lines}
    answer = ask(client, body=script, save_dir="nas").json()
    assert ["nothere" in text for text in answer["warnings"]] == [True]
