"""What scripts may do while a job is drawn, on a tiny checkpoint."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.stages import Stages, UNetCall
from tests.engines import cpu_engine, golden_file, tiny_job

STEPS = 2


@pytest.fixture
def engine() -> Engine:
    return cpu_engine()


@pytest.fixture
def job(golden: Path) -> Job:
    return tiny_job(golden_file(golden, "tinyA"), steps=STEPS)


class Recording(Stages):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def begin_pass(self, sampling: Any) -> Any:
        self.told.append("begin")
        return sampling

    def before_denoise(self, call: UNetCall) -> None:
        self.told.append(f"unet {len(call.rows)}")

    def on_step(self, index: int, denoised: Tensor | None) -> None:
        assert denoised is not None
        self.told.append(f"step {index}")

    def end_pass(self, sampling: Any, latent: Tensor) -> Tensor:
        self.told.append("end")
        return latent

    def after_decode(self, images: Sequence[Image.Image]) -> Sequence[Image.Image]:
        self.told.append("decoded")
        self.extra_images.append(images[0].rotate(180))
        return images

    def close(self) -> None:
        self.told.append("close")


def test_stages_are_told_in_their_order(engine: Engine, job: Job):
    recording = Recording()
    result = engine.run(replace(job, stages=(recording,)), Monitor())
    steps = [part for index in range(STEPS) for part in ("unet 2", f"step {index}")]
    assert recording.told == ["begin", *steps, "end", "decoded", "close"]
    assert result.extra_images == tuple(recording.extra_images)


def test_stages_that_change_nothing_leave_the_picture(engine: Engine, job: Job):
    plain = engine.run(job, Monitor()).images[0].image
    watched = engine.run(replace(job, stages=(Recording(), Stages())), Monitor()).images[0].image
    assert np.array_equal(np.asarray(plain), np.asarray(watched))


class Halving(Stages):
    """Halves what goes into the UNet, and the latent that comes out."""

    def before_denoise(self, call: UNetCall) -> None:
        call.x = call.x / 2

    def end_pass(self, sampling: Any, latent: Tensor) -> Tensor:
        return latent / 2


def test_stages_may_change_what_they_are_handed(engine: Engine, job: Job):
    plain = engine.run(job, Monitor()).images[0].image
    halved = engine.run(replace(job, stages=(Halving(),)), Monitor()).images[0].image
    assert not np.array_equal(np.asarray(plain), np.asarray(halved))


class Broken(Recording):
    def on_step(self, index: int, denoised: Tensor | None) -> None:
        raise ZeroDivisionError


def test_stages_are_closed_when_one_fails(engine: Engine, job: Job):
    first, broken = Recording(), Broken()
    with pytest.raises(ZeroDivisionError):
        engine.run(replace(job, stages=(first, broken)), Monitor())
    assert (first.told[-1], broken.told[-1]) == ("close", "close")
