"""Hires fix on a tiny checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdapi.engine.drawing.hires import cut, merge_keys, timeline
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import BEFORE_HIRES, HiresPass, Job, SamplingOptions
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.latents.latent_modes import LATENT_MODES
from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.engine.upscaling.upscaler import Filter
from tests.engines import cpu_engine, golden_file, tiny_job

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return cpu_engine()


@pytest.fixture(scope="module")
def job(golden: Path) -> Job:
    checkpoint = golden_file(golden, "tinyA")
    hires = HiresPass(
        upscaler=LATENT_MODES[0],
        size=(96, 96),
        denoising_strength=0.6,
        steps=2,
        sampler=find_sampler("Euler"),
        scheduler="Automatic",
        prompts=("a cat",),
        negative_prompts=("",),
        checkpoint=checkpoint,
    )
    return tiny_job(checkpoint, hires=hires)


def changed(job: Job, **changes: Any) -> Job:
    assert job.hires is not None
    return replace(job, hires=replace(job.hires, **changes))


def drawn(engine: Engine, job: Job) -> np.ndarray:
    (image,) = engine.run(job, Monitor()).images
    return np.asarray(image.image).astype(int)


@pytest.mark.parametrize("upscaler", [LATENT_MODES[0], Filter.LANCZOS], ids=str)
def test_inpainting_checkpoint_sees_the_enlarged_picture_as_far_as_it_is_not_masked(
    engine: Engine, job: Job, golden: Path, upscaler: Any
):
    checkpoint = golden_file(golden, "tinyInpaint")
    job = changed(replace(job, checkpoint=checkpoint), checkpoint=checkpoint, upscaler=upscaler)
    masked = drawn(engine, changed(job, surplus=(2, 0)))
    assert masked.shape == (96, 80, 3)
    seeing = replace(job, options=SamplingOptions(inpainting_mask_weight=0.2))
    assert not np.array_equal(drawn(engine, changed(seeing, surplus=(2, 0))), masked)


class StopBetweenPasses(Monitor):
    """Interrupts once the first pass has reported its steps."""

    def step_done(self, index: int) -> None:
        super().step_done(index)
        if index == 1 and self.job_no == 0:
            self.interrupted.set()


@pytest.mark.parametrize("upscaler", [*LATENT_MODES, *Filter], ids=str)
def test_every_way_to_enlarge_draws_at_the_second_size(engine: Engine, job: Job, upscaler: Any):
    assert drawn(engine, changed(job, upscaler=upscaler)).shape == (96, 96, 3)


def test_surplus_cells_are_cut_off(engine: Engine, job: Job):
    wide = changed(job, size=(128, 128), surplus=(0, 3))
    assert drawn(engine, wide).shape == (104, 128, 3)


def test_cut_takes_the_smaller_half_from_the_start():
    cells = torch.arange(5.0).reshape(1, 1, 1, 5)
    assert cut(cells, (3, 0)).flatten().tolist() == [1, 2]


def test_job_interrupted_in_its_first_pass_returns_the_small_picture(engine: Engine, job: Job):
    monitor = StopBetweenPasses()
    result = engine.run(job, monitor)
    assert result.interrupted
    assert result.images[0].image.size == (64, 64)


def test_passes_are_counted_twice(engine: Engine, job: Job):
    monitor = Monitor()
    engine.run(job, monitor)
    assert (monitor.job_count, monitor.job_no) == (2, 2)


def test_first_pass_is_kept_when_asked_for(engine: Engine, job: Job):
    (kept,) = engine.run(changed(job, keeps_first=True), Monitor()).images
    (alone,) = engine.run(replace(job, hires=None), Monitor()).images
    assert kept.variants[BEFORE_HIRES].tobytes() == alone.image.tobytes()
    assert engine.run(job, Monitor()).images[0].variants == {}


def test_given_picture_stands_for_the_first_pass(engine: Engine, job: Job):
    (first,) = engine.run(replace(job, hires=None), Monitor()).images
    given = changed(job, upscaler=Filter.LANCZOS, first_picture=first.image)
    usual = drawn(engine, changed(job, upscaler=Filter.LANCZOS))
    assert np.array_equal(drawn(engine, given), usual)
    other = changed(given, first_picture=Image.new("RGB", (64, 64), "red"))
    assert np.abs(drawn(engine, other) - usual).max() > 5


def test_second_pass_has_a_checkpoint_prompt_and_sampler_of_its_own(
    engine: Engine, job: Job, golden: Path
):
    usual = drawn(engine, job)
    for changes in (
        {"checkpoint": golden_file(golden, "tinyB")},
        {"prompts": ("a dog",)},
        {"sampler": find_sampler("DPM++ 2M")},
        {"steps": 5},
    ):
        assert np.abs(drawn(engine, changed(job, **changes)) - usual).max() > 2
    assert np.array_equal(drawn(engine, job), usual)


def test_second_pass_goes_on_where_the_firsts_prompt_schedule_ended(job: Job):
    second = replace(job, steps=5)
    assert timeline(job, second).boundary("1.5") == 2
    assert timeline(job, second).boundary("4") == 2


def test_schedule_of_the_second_pass_is_told_where_it_differs():
    extra: dict[str, Any] = {"Schedule type": "Karras", "Hires schedule type": None}
    merge_keys(extra, {"Schedule type": "Karras", "Extra noise": 0.1})
    assert extra["Hires schedule type"] is None
    merge_keys(extra, {"Schedule type": "Beta"})
    assert extra["Hires schedule type"] == "Beta"
    assert list(extra) == ["Schedule type", "Hires schedule type", "Extra noise"]
