import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """S3's clients close where they are collected, which must not be in another test's loop."""
    yield
    gc.collect()
