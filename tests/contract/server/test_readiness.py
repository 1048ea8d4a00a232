"""What `/readyz` tells of a server that cannot draw."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import ModelUnusable
from sdapi.services.jobs.worker import JobRunner
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import wait_ready


class Picky(FakeEngine):
    """Loads no file with this text in its name."""

    broken = "one"

    def load(self, checkpoint: ModelFile) -> None:
        if self.broken in checkpoint.path.name:
            raise ModelUnusable(f"{checkpoint.path.name}: it is cut off: 7 of 9 bytes")
        super().load(checkpoint)


class NoEngines(FakeEngines):
    """A machine on which no device works."""

    def make(self, settings: Settings, name: str) -> JobRunner:
        raise OSError("no driver")


@contextmanager
def started(data_dir: Path, engines: FakeEngines) -> Iterator[TestClient]:
    """A client of a server that has come as far as it will."""
    app = build_app(Settings(data_dir=data_dir), engines)
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
