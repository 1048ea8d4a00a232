"""A server with a queue."""

import pytest
from starlette.testclient import TestClient

from tests.contract.conftest import Serve


@pytest.fixture
def queue(serve: Serve) -> TestClient:
    """A server of the service `svc`."""
    return serve(services=("svc",))
