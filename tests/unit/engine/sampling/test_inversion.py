"""img2img alternative test: drawing from the noise behind a picture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdapi.engine.engine import Engine
from sdapi.engine.jobs.init_images import InitImages, Inversion
from sdapi.engine.jobs.job import Job, ModelFile, Result
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.stages import Stages
from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.engine.sampling.sampling_pass import SamplingPass
from tests.engines import cpu_engine, golden_file, tiny_job
from tests.models.builders import build_sdxl

STEPS = 4
FOUND = Inversion("a cat", "", steps=STEPS, cfg_scale=1.0)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return cpu_engine()


@pytest.fixture(scope="module")
def picture(golden: Path) -> Image.Image:
    with Image.open(golden / "inputs" / "a128.png") as image:
        return image.convert("RGB").resize((64, 64))


@pytest.fixture(scope="module")
def job(golden: Path, picture: Image.Image) -> Job:
    init = InitImages((picture,), 1.0, inversion=FOUND)
    return tiny_job(golden_file(golden, "tinyA"), steps=STEPS, cfg_scale=1.0, init=init)


@pytest.fixture(scope="module")
def found(engine: Engine, job: Job) -> np.ndarray:
    """What the job draws."""
    return pixels(run(engine, job))


def run(engine: Engine, job: Job, monitor: Monitor | None = None) -> Result:
    return engine.run(job, monitor or Monitor())


def pixels(result: Result, number: int = 0) -> np.ndarray:
    return np.asarray(result.images[number].image).astype(int)


def inverted(job: Job, **changes: object) -> Job:
    """The job with another inversion; `inversion` None is ordinary img2img."""
    assert job.init is not None
    inversion = None if changes == {"inversion": None} else replace(FOUND, **changes)
    return replace(job, init=replace(job.init, inversion=inversion))


class Latents(Stages):
    """How far a pass ends from the latent it began with, as a share of that."""

    distance = 0.0

    def end_pass(self, sampling: SamplingPass, latent: torch.Tensor) -> torch.Tensor:
        assert sampling.start is not None
        begun = sampling.start.latent
        self.distance = float((latent - begun).norm() / begun.norm())
        return latent


def test_the_latent_comes_back_from_the_noise_behind_it(engine: Engine, job: Job):
    distances: list[float] = []
    job = replace(job, steps=12)
    for each in (inverted(job, steps=12), inverted(job, inversion=None)):
        stage = Latents()
        run(engine, replace(each, stages=(stage,)))
        distances.append(stage.distance)
    assert distances[0] < distances[1] / 2


@pytest.mark.parametrize("name", ["Euler", "DPM++ 2M"])
def test_nothing_but_random_noise_draws_as_txt2img_does(engine: Engine, job: Job, name: str):
    job = replace(job, sampler=find_sampler(name), scheduler="Uniform")
    drawn = pixels(run(engine, inverted(job, randomness=1.0)))
    plain = pixels(run(engine, replace(job, init=None)))
    assert np.abs(drawn - plain).max() <= 1


def test_an_ancestral_sampler_draws_its_own_noise_from_the_beginning(engine: Engine, job: Job):
    job = replace(job, sampler=find_sampler("Euler a"), scheduler="Uniform")
    drawn = pixels(run(engine, inverted(job, randomness=1.0)))
    plain = pixels(run(engine, replace(job, init=None)))
    assert np.abs(drawn - plain).max() > 2


def test_adjusted_sigmas_find_other_noise(engine: Engine, job: Job, found: np.ndarray):
    adjusted = run(engine, inverted(job, adjusts_sigma=True))
    assert np.abs(found - pixels(adjusted)).max() > 2


def test_the_texts_of_the_inversion_count(engine: Engine, job: Job, found: np.ndarray):
    other = run(engine, inverted(job, prompt="a (dog:1.4)"))
    assert np.abs(found - pixels(other)).max() > 2


def test_schedules_are_no_part_of_them(engine: Engine, job: Job):
    """A text that is edited while it is drawn would be empty at first, and then a dog."""
    edited = run(engine, inverted(job, prompt="[dog:0.5]"))
    for text in ("", "dog"):
        assert np.abs(pixels(edited) - pixels(run(engine, inverted(job, prompt=text)))).max() > 2


@pytest.mark.parametrize("name", ["DDIM", "UniPC"])
def test_samplers_over_time_steps_start_from_it_too(engine: Engine, job: Job, name: str):
    job = replace(job, sampler=find_sampler(name))
    found, ordinary = run(engine, job), run(engine, inverted(job, inversion=None))
    assert np.abs(pixels(found) - pixels(ordinary)).max() > 2


def test_every_batch_starts_from_the_same_noise(engine: Engine, job: Job):
    several = replace(
        job,
        n_iter=2,
        prompts=job.prompts * 2,
        negative_prompts=job.negative_prompts * 2,
        seeds=(7, 7),
        subseeds=(0, 0),
    )
    result = run(engine, several)
    assert np.array_equal(pixels(result, 0), pixels(result, 1))


class Stopping(Monitor):
    """Says stop after the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def step_done(self, index: int) -> None:
        super().step_done(index)
        self.steps.append(index)
        self.interrupted.set()


def test_it_stops_within_a_step_while_it_looks_for_noise(engine: Engine, job: Job):
    monitor = Stopping()
    run(engine, inverted(job, steps=1000), monitor)
    assert (monitor.steps, monitor.sampling_steps) == ([0], 1000)


def test_it_works_with_sdxl(engine: Engine, job: Job, tmp_path: Path):
    path = build_sdxl().write(tmp_path / "sdxl.safetensors")
    result = run(engine, replace(job, checkpoint=ModelFile.of(path, None)))
    assert result.images[0].image.size == (64, 64)
