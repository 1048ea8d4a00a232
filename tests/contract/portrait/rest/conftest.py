"""A whole server with the portrait, and photos for it."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.contract.portrait.rest.signed_calls import (
    add_accounts,
)
from tests.fakes import FakeEngines
from tests.photo_server import PhotoServer, photo_server


@pytest.fixture(scope="module")
def photos() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A whole server that may fetch from loopback; it has a token, which these calls need not."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("portrait"),
        allow_private_urls=True,
        portrait_processes=1,
        token="server-token",
    )
    add_accounts(settings)
    with TestClient(build_app(settings, FakeEngines()), raise_server_exceptions=False) as running:
        yield running
