"""A server of the OSS protocol, and one of ours whose mount is a prefix of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sdapi.settings import Mount
from tests.contract.conftest import Serve
from tests.contract.object_storage.calls import BUCKET, MOUNT
from tests.oss.server import OssServer, oss_server


@pytest.fixture
def oss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OssServer]:
    with oss_server(tmp_path / "buckets", buckets=(BUCKET, "other")) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def mounted(serve: Serve, oss: OssServer) -> TestClient:
    """A server whose mount is only a name for a prefix."""
    return serve(mounts=(Mount(MOUNT, f"oss://{BUCKET}/data-oss"),), upload_timeout_s=5.0)
