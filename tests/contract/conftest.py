"""An application that paints instead of drawing, and clients of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import in_process

Serve = Callable[..., TestClient]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with one checkpoint in name only."""
    path = tmp_path / "data"
    folder = path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    (folder / "one.safetensors").write_bytes(b"weights")
    return path


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def serve(data_dir: Path, engine: FakeEngine) -> Iterator[Serve]:
    """Start a server with these settings."""
    with ExitStack() as running:

        def start(**settings: Any) -> TestClient:
            app = build_app(Settings(data_dir=data_dir, **settings), FakeEngines(engine))
            return running.enter_context(in_process(app, raise_server_exceptions=False))

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    """A server that is open to everyone."""
    return serve()
