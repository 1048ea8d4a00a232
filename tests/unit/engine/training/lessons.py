"""Small trainings for tests."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdapi.engine.models.device_models import Models
from sdapi.engine.training.job import LoraShape, TrainingJob, TrainingMonitor, TrainingPicture
from sdapi.engine.training.training_run import TrainingRun
from tests.engines import cpu_models


def lesson(checkpoint: Any, folder: Path, **changes: Any) -> TrainingJob:
    """Two pictures, six updates at 64 pixels, a checkpoint after every third."""
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "id": "lesson",
        "checkpoint": checkpoint,
        "pictures": pictures(folder),
        "folder": folder,
        "resolution": 64,
        "steps": 6,
        "checkpoint_every": 3,
        "shape": LoraShape(8, 4.0),
        "seed": 5,
    }
    return TrainingJob(**(values | changes))


def pictures(folder: Path) -> tuple[TrainingPicture, ...]:
    """An upright and a wide one."""
    made: list[TrainingPicture] = []
    for number, size in enumerate(((70, 100), (130, 80))):
        path = folder / f"{number}.png"
        noise = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).save(path)
        made.append(TrainingPicture(path, f"a portrait of person {number}"))
    return tuple(made)


def begun(job: TrainingJob, models: Models | None = None) -> TrainingRun:
    """A training that is ready for its first update."""
    run = TrainingRun(models or cpu_models(), job, TrainingMonitor())
    run.begin()
    return run


def finished(job: TrainingJob, models: Models | None = None) -> TrainingRun:
    """A training from begin to end."""
    run = begun(job, models)
    while not run.is_finished:
        run.update()
    return run
