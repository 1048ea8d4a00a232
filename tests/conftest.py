"""Fixtures that every test may use."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.replay.golden_models import complete
from tests.servers import golden_data_dir

# One thread: tensors here are tiny, and threads that fight over cores cost many times what they
# gain. Sums are then also taken in one order everywhere. Children inherit it.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(1)

# A busy machine is no defect. The same examples are tried every time, so that a run says something
# of the change it tests; `pytest --hypothesis-profile search` looks for new ones.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("sdapi", settings.get_profile("search"), derandomize=True)
settings.load_profile("sdapi")


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio, as the server does."""
    return "asyncio"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The recorded data of the reference."""
    folder = Path(__file__).parent / "golden"
    complete(folder)
    return folder


@pytest.fixture
def tiny_data_dir(tmp_path: Path) -> Path:
    """A data directory with the tiny checkpoints and VAE."""
    return golden_data_dir(tmp_path / "data")
