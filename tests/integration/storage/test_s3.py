"""The same road into buckets of S3, on moto's server."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import requests

from sdapi.app import build_app
from sdapi.cli import main
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.stores import fsspec_store
from sdapi.services.storage.stores.by_url import Stores
from sdapi.services.storage.stores.store import Reason, StoreError
from sdapi.settings import Mount, Settings
from tests.eas_client import client_python
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import in_process, wait_ready

BUCKET = "results"
MOUNT = Path("/code/stable-diffusion-webui/data-oss")
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "seed": 100}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    python = client_python(Path(__file__).parents[2] / "requirements-moto.txt")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(python.with_name("moto_server")), "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_ready(lambda: _listens(port))
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client that sees what is in the buckets."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "OSS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    requests.post(f"{endpoint}/moto-api/reset", timeout=10)
    client = botocore.session.get_session().create_client("s3", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


def content(s3: Any, key: str) -> bytes:
    with s3.get_object(Bucket=BUCKET, Key=key)["Body"] as body:
        return body.read()


def test_pictures_go_to_the_bucket_and_pictures_and_models_come_from_it(tmp_path: Path, s3: Any):
    folder = tmp_path / "data" / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    (folder / "one.safetensors").write_bytes(b"weights")
    mount = Mount(MOUNT, f"s3://{BUCKET}/data")
    settings = Settings(data_dir=tmp_path / "data", mounts=(mount,), sign_urls_s=60)
    engine = FakeEngine()
    with in_process(build_app(settings, FakeEngines(engine))) as client:

        def ask(kind: str, **eas: Any) -> Any:
            answer = client.post(f"/sdapi/v1/{kind}", json=SMALL | {"alwayson_scripts": eas})
            assert answer.status_code == 200, answer.text
            return answer.json()["parameters"]

        parameters = ask("txt2img", save_dir=f"{MOUNT}/ü 1+1")
        key = parameters["image_url"].replace(str(MOUNT), "data")
        assert content(s3, key) == requests.get(parameters["signed_url"], timeout=10).content
        s3.put_object(Bucket=BUCKET, Key="data/m/x.safetensors", Body=b"of the bucket")
        model = f"s3://{BUCKET}/data/m/x.safetensors"
        ask("img2img", image_link=f"s3://{BUCKET}/{key}", sd_model_checkpoint=model)
    assert engine.jobs[-1].checkpoint.path.read_bytes() == b"of the bucket"


def test_objects_of_others_stay(tmp_path: Path, s3: Any):
    file = tmp_path / "a.png"
    file.write_bytes(b"ours")
    store = Stores({}).store(ObjectUrl.parse(f"s3://{BUCKET}/x"))
    url = ObjectUrl.parse(f"s3://{BUCKET}/x/a.png")
    store.put(url, file, replaces=False)
    store.put(url, file, replaces=False)
    file.write_bytes(b"others'")
    with pytest.raises(StoreError) as raised:
        store.put(url, file, replaces=False)
    assert raised.value.reason is Reason.EXISTS
    assert content(s3, "x/a.png") == b"ours"
    assert list(store.names(ObjectUrl.parse(f"s3://{BUCKET}/x"))) == ["a.png"]
    store.put(url, file, replaces=True)
    assert store.read(url, max_bytes=10) == b"others'"
    with pytest.raises(StoreError) as raised:
        store.read(url, max_bytes=3)
    assert raised.value.reason is Reason.TOO_LARGE


def test_store_that_does_not_listen_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    file = tmp_path / "a.png"
    file.write_bytes(b"ours")
    url = ObjectUrl.parse(f"s3://{BUCKET}/x/a.png")
    with pytest.raises(StoreError) as raised:
        Stores({}).store(url).put(url, file, replaces=True)
    assert raised.value.is_passing


def test_tries_of_a_failing_store_are_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    class Failing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(self.path)
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    (tmp_path / "a.png").write_bytes(b"ours")
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = ObjectUrl.parse(f"s3://{BUCKET}/x/a.png")
        with pytest.raises(StoreError) as raised:
            Stores({}).store(url).put(url, tmp_path / "a.png", replaces=True)
        server.shutdown()
    assert raised.value.is_passing
    assert asked == [f"/{BUCKET}/x/a.png"]


def test_store_that_takes_a_connection_and_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fsspec_store, "_CALL_S", 0.5)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    (tmp_path / "a.png").write_bytes(b"ours")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        url = ObjectUrl.parse(f"s3://{BUCKET}/x/a.png")
        with pytest.raises(StoreError) as raised:
            Stores({}).store(url).put(url, tmp_path / "a.png", replaces=True)
    assert raised.value.is_passing


def test_prefix_without_objects_is_fine_at_the_start(s3: Any):
    url = ObjectUrl.parse(f"s3://{BUCKET}/nothing/yet")
    Stores({}).store(url).check(url)


def test_missing_bucket_is_told_at_the_start(
    tmp_path: Path, s3: Any, capsys: pytest.CaptureFixture[str]
):
    flags = ["--port=0", "--data-dir", str(tmp_path), f"--mount={MOUNT}=s3://none-such/x"]
    assert main(flags) == 1
    assert "s3://none-such" in capsys.readouterr().err
