"""What `/readyz` tells of a server that cannot draw, and what becomes of its queue's items."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import ModelUnreadable, ModelUnusable, OutOfMemory
from sdapi.services.jobs.worker import JobRunner
from sdapi.settings import Settings
from tests.contract.queue.calls import BODY, SINK, U, attributes, items, service_file
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import wait_ready


class Picky(FakeEngine):
    """Loads no file with this text in its name."""

    broken = "one"

    def load(self, checkpoint: ModelFile) -> None:
        if self.broken in checkpoint.path.name:
            raise ModelUnusable(f"{checkpoint.path.name}: it is cut off: 7 of 9 bytes")
        super().load(checkpoint)


class Reading(FakeEngine):
    """Reads the file, as real ones do."""

    def load(self, checkpoint: ModelFile) -> None:
        try:
            checkpoint.path.read_bytes()
        except FileNotFoundError:
            raise ModelUnreadable(f"{checkpoint.path.name}: the file is gone") from None
        super().load(checkpoint)


class NoEngines(FakeEngines):
    """A machine on which no device works."""

    def make(self, settings: Settings, name: str) -> JobRunner:
        raise OSError("no driver")


@contextmanager
def started(data_dir: Path, engines: FakeEngines, **settings: Any) -> Iterator[TestClient]:
    """A client of a server that has come as far as it will."""
    app = build_app(Settings(data_dir=data_dir, **settings), engines)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_ready(lambda: client.get("/readyz").json()["status"] != "starting", 10)
        yield client


def test_a_broken_checkpoint_without_another_is_a_server_that_is_not_ready(data_dir: Path):
    with started(data_dir, FakeEngines(Picky())) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "unusable")
        assert answer.json()["problems"] == [
            "the checkpoint one.safetensors cannot be loaded: it is cut off: 7 of 9 bytes"
        ]
        assert str(data_dir) not in answer.text
        assert client.get("/healthz").status_code == 200


def test_beside_a_whole_one_it_is_ready_and_still_told(data_dir: Path):
    whole = (2).to_bytes(8, "little") + b"{}"
    (data_dir / "models/Stable-diffusion/two.safetensors").write_bytes(whole)
    with started(data_dir, FakeEngines(Picky())) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        assert "one.safetensors" in answer.json()["problems"][0]


def test_a_server_without_a_device_has_failed_and_says_why(data_dir: Path):
    with started(data_dir, NoEngines(FakeEngine())) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "failed")
        assert answer.json()["problems"] == ["no device can draw (OSError); the log has the reason"]


WHOLE = (2).to_bytes(8, "little") + b"{}"
NO_CHECKPOINT = (
    "no checkpoint to draw with: put a .safetensors or .ckpt file into models/Stable-diffusion "
    "and POST /sdapi/v1/refresh-checkpoints"
)


@pytest.fixture
def empty_dir(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory without a checkpoint, of a server without the demo."""
    monkeypatch.setattr("sdapi.services.catalog.catalog.DEMO_CHECKPOINT", data_dir / "no-demo")
    (data_dir / "models/Stable-diffusion/one.safetensors").unlink()
    return data_dir


def status_of(client: TestClient) -> tuple[int, str]:
    answer = client.get("/readyz")
    return answer.status_code, answer.json()["status"]


def test_what_a_load_met_by_chance_is_told_and_the_server_is_ready(data_dir: Path):
    engine = FakeEngine(load_failure=OutOfMemory("the GPU is full"))
    with started(data_dir, FakeEngines(engine)) as client:
        assert status_of(client) == (200, "ready")
        assert client.get("/readyz").json()["problems"] == [
            "the checkpoint one.safetensors cannot be loaded: the GPU is full; "
            "it is tried again every 30 s"
        ]
        engine.load_failure = None
        assert client.post("/sdapi/v1/txt2img", json={"steps": 1}).status_code == 200
        assert "problems" not in client.get("/readyz").json()


def test_without_any_checkpoint_it_is_not_ready_until_one_is_there(empty_dir: Path):
    engine = FakeEngine()
    with started(empty_dir, FakeEngines(engine)) as client:
        assert status_of(client) == (503, "unusable")
        assert client.get("/readyz").json()["problems"] == [NO_CHECKPOINT]
        path = empty_dir / "models/Stable-diffusion/two.safetensors"
        path.write_bytes(WHOLE)
        assert client.post("/sdapi/v1/refresh-checkpoints").status_code == 200
        assert status_of(client) == (200, "ready")
        wait_ready(lambda: engine.loaded == [ModelFile.of(path)], 10)


def test_a_checkpoint_that_has_gone_since_the_start_is_told_until_it_is_back(data_dir: Path):
    path = data_dir / "models/Stable-diffusion/one.safetensors"
    app = build_app(Settings(data_dir=data_dir), FakeEngines(Reading()))
    path.unlink()
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_ready(lambda: status_of(client) == (503, "unusable"), 10)
        assert "the file is gone" in client.get("/readyz").json()["problems"][0]
        path.write_bytes(WHOLE)
        wait_ready(lambda: status_of(client) == (200, "ready"), 10)


def test_a_file_that_cannot_be_hashed_is_loaded_all_the_same(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(self: object, path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sdapi.services.catalog.model_files.hashes.HashCache.compute", fail)
    with started(data_dir, FakeEngines(Picky())) as client:
        assert status_of(client) == (503, "unusable")


def test_headers_of_checkpoints_are_read_once_however_often_it_is_asked(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    (data_dir / "models/Stable-diffusion/other.safetensors").write_bytes(b"no weights")
    with started(data_dir, FakeEngines(Picky())) as client:
        assert status_of(client) == (503, "unusable")

        def fail(*_: object) -> None:
            raise AssertionError("a file was read again")

        monkeypatch.setattr("sdapi.services.catalog.model_files.weight_file._problem", fail)
        assert [status_of(client) for _ in range(3)] == [(503, "unusable")] * 3


def put_txt2img(client: TestClient) -> None:
    assert client.post(f"{U}/sdapi/v1/txt2img", content=BODY).status_code == 200


def waits_untried(client: TestClient) -> bool:
    """Whether an item is in its queue a while later."""
    time.sleep(1.5)  # three looks of the dispatcher
    return attributes(client, U)["stream.length"] == "1"


def test_items_wait_uncounted_until_the_checkpoint_is_mended(data_dir: Path):
    engine = Picky()
    with started(data_dir, FakeEngines(engine), services=("svc",)) as client:
        put_txt2img(client)
        assert waits_untried(client)
        assert engine.jobs == []
        engine.broken = "nothing"
        (data_dir / "models/Stable-diffusion/one.safetensors").write_bytes(WHOLE)
        [item] = items(client, SINK, _timeout_="20s", _length_="1")
        assert "lastCode" not in item["tags"]


def test_items_that_come_when_the_checkpoints_have_gone_wait_uncounted(
    empty_dir: Path, caplog: pytest.LogCaptureFixture
):
    path = empty_dir / "models/Stable-diffusion/one.safetensors"
    path.write_bytes(WHOLE)
    with started(empty_dir, FakeEngines(), services=("svc",)) as client:
        put_txt2img(client)
        assert len(items(client, SINK, _timeout_="20s", _length_="1", _auto_delete_="true")) == 1
        path.unlink()
        client.post("/sdapi/v1/refresh-checkpoints")
        put_txt2img(client)
        assert waits_untried(client)
        assert f"service svc: {NO_CHECKPOINT}; its items wait" in caplog.text
        path.write_bytes(WHOLE)
        client.post("/sdapi/v1/refresh-checkpoints")
        [item] = items(client, SINK, _timeout_="20s", _length_="1")
        assert "lastCode" not in item["tags"]


def test_a_call_through_a_service_without_a_queue_tells_what_is_wrong(empty_dir: Path):
    service = service_file(empty_dir, metadata={"name": "direct", "type": ""})
    with started(empty_dir, FakeEngines(), service_files=(service,)) as client:
        answer = client.post("/api/predict/direct/sdapi/v1/txt2img", json={"steps": 1})
        assert (answer.status_code, answer.json()["code"]) == (503, "no_checkpoint")
