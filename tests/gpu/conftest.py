"""What the tests on a GPU share: the device, models made once, and engines that hold them.

`SDAPI_GPU_TESTS_DEVICE=cpu` runs them on a CPU with small models, for whoever changes the tests
themselves; what only a GPU has is skipped there.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdapi.engine.checkpoints.checkpoint import Components
from tests.gpu.drawing import Bench
from tests.models.full_size import Shape, build, shrunk

_VARIABLE = "SDAPI_GPU_TESTS_DEVICE"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test."""
    name = os.environ.get(_VARIABLE, "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda:0" if name == "cuda" else name)


@pytest.fixture(scope="session")
def bench(device: torch.device) -> Bench:
    """How large models and pictures are on the device under test."""
    return Bench(device)


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """The device under test, for what a CPU has not."""
    if device.type != "cuda":
        pytest.skip("needs the memory of a CUDA device")
    return device


Build = Callable[..., Components]


@pytest.fixture(scope="module")
def components(bench: Bench) -> Build:
    """Checkpoints of random weights, each made once."""
    made: dict[tuple[Shape, torch.dtype, int], Components] = {}

    def get(shape: Shape, dtype: torch.dtype, seed: int = 0) -> Components:
        key = (shape, dtype, seed)
        if key not in made:
            wanted = shape if bench.is_full_size else shrunk(shape)
            made[key] = build(wanted, bench.device, dtype, seed=seed)
        return made[key]

    return get


@pytest.fixture(scope="session")
def golden_models() -> Path:
    """The folder of the tiny checkpoints that the reference drew with."""
    return Path(__file__).parents[1] / "golden" / "models"
