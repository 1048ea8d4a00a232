"""Fixtures of several parts' tests."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.queues.queue_stores import redis_server, redis_servers


@pytest.fixture(scope="session")
def redis_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running server of each kind; without waits for the disk, which is not what is tested."""
    with ExitStack() as running:
        yield {
            name: running.enter_context(
                redis_server(program, tmp_path_factory.mktemp(name), "no")
            ).url
            for name, program in redis_servers().items()
        }
