"""What every training of these tests needs: photos to fetch, and processes that see faces."""

from collections.abc import Iterator

import pytest

from sdapi.portrait.faces.processes import FaceProcesses
from sdapi.portrait.faces.providers import Choices
from tests.photo_server import PhotoServer, photo_server


@pytest.fixture(scope="module")
def photos() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaceProcesses]:
    choices = Choices.make(tmp_path_factory.mktemp("models"), {})
    made = FaceProcesses(choices, 1, timeout_s=240)  # for machines that do much else
    yield made
    made.close()
