"""What tests of units draw with: the golden checkpoint, and a photo."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sdapi.engine.control.control_stages import ControlStages
from sdapi.engine.control.unit import ControlUnit, Pixels
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job, ModelFile
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.models.device_models import Models
from tests.engines import cpu_engine, golden_file, tiny_job


@pytest.fixture(scope="module")
def engine() -> Engine:
    """One for all, as in a server: whatever a job leaves behind would meet the next."""
    return cpu_engine()


@pytest.fixture(scope="module")
def models(engine: Engine) -> Models:
    return engine.models


@pytest.fixture(scope="session")
def checkpoint(golden: Path) -> ModelFile:
    return golden_file(golden, "tinyA")


@pytest.fixture
def job(checkpoint: ModelFile) -> Job:
    return tiny_job(checkpoint)


@pytest.fixture
def photo(golden: Path) -> Pixels:
    with Image.open(golden / "inputs" / "a128.png") as image:
        return np.asarray(image.convert("RGB").resize((64, 64)))


@pytest.fixture
def draw(engine: Engine, checkpoint: ModelFile) -> Callable[..., list[Tensor]]:
    """Draws a job with units; the pictures as float tensors."""

    def run(*units: ControlUnit, **changes: Any) -> list[Tensor]:
        job = tiny_job(checkpoint, **changes)
        if units:
            job = replace(job, stages=(ControlStages(units),))
        result = engine.run(job, Monitor())
        return [torch.from_numpy(np.asarray(each.image, np.float32)) for each in result.images]

    return run
