"""A second tiny checkpoint that takes over."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import HiresPass, Job, Refiner, Result, SamplingOptions
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.latents.latent_modes import LATENT_MODES
from sdapi.engine.sampling.handover import Handover
from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.errors import ModelUnusable
from tests.engines import cpu_engine, golden_file, tiny_job

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return cpu_engine()


@pytest.fixture(scope="module")
def job(golden: Path) -> Job:
    return tiny_job(golden_file(golden, "tinyA"), steps=4)


@pytest.fixture(scope="module")
def refiner(golden: Path) -> Refiner:
    return Refiner(golden_file(golden, "tinyB"), "tinyB", switch_at=0.5)


def run(engine: Engine, job: Job) -> Result:
    return engine.run(job, Monitor())


def pixels(result: Result) -> np.ndarray:
    return np.asarray(result.images[0].image).astype(int)


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DDIM", "UniPC", "LCM", "DPM fast"])
def test_refiner_draws_the_rest(engine: Engine, job: Job, refiner: Refiner, sampler: str):
    job = replace(job, sampler=find_sampler(sampler), steps=6)
    alone, refined = run(engine, job), run(engine, replace(job, refiner=refiner))
    assert np.abs(pixels(alone) - pixels(refined)).max() > 2
    assert refined.extra["Refiner"] == "tinyB"
    assert refined.extra["Refiner switch at"] == 0.5
    assert np.array_equal(pixels(run(engine, job)), pixels(alone))


def test_refiner_without_a_switch_draws_everything(engine: Engine, job: Job, refiner: Refiner):
    whole = run(engine, replace(job, checkpoint=refiner.checkpoint))
    refined = run(engine, replace(job, refiner=replace(refiner, switch_at=None)))
    assert np.abs(pixels(whole) - pixels(refined)).max() <= 1


@pytest.mark.parametrize("switch_at", [1.0, 2.0])
def test_refiner_that_never_comes_is_not_told(
    engine: Engine, job: Job, refiner: Refiner, switch_at: float
):
    result = run(engine, replace(job, refiner=replace(refiner, switch_at=switch_at)))
    assert "Refiner" not in result.extra
    assert np.array_equal(pixels(result), pixels(run(engine, job)))


def test_checkpoint_is_no_refiner_of_itself(engine: Engine, job: Job, refiner: Refiner):
    itself = replace(refiner, checkpoint=job.checkpoint)
    assert "Refiner" not in run(engine, replace(job, refiner=itself)).extra


def test_each_batch_begins_with_the_first_checkpoint(engine: Engine, job: Job, refiner: Refiner):
    job = replace(job, refiner=refiner)
    both = replace(
        job,
        prompts=job.prompts * 2,
        negative_prompts=("", ""),
        seeds=(7, 7),
        subseeds=(0, 0),
        n_iter=2,
    )
    one, two = run(engine, both).images
    assert one.image.tobytes() == two.image.tobytes()


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [(False, True, None), (True, False, "first pass"), (True, True, "both passes")],
)
def test_hires_fix_has_the_refiner_in_the_passes_asked_for(
    engine: Engine, job: Job, refiner: Refiner, first: bool, second: bool, told: str | None
):
    hires = HiresPass(
        upscaler=LATENT_MODES[0],
        size=(96, 96),
        denoising_strength=0.7,
        steps=4,
        sampler=job.sampler,
        scheduler="Automatic",
        prompts=job.prompts,
        negative_prompts=job.negative_prompts,
        checkpoint=job.checkpoint,
        keeps_first=True,
    )
    plain = replace(job, hires=hires)
    chosen = replace(refiner, in_first_pass=first, in_second_pass=second)
    (usual,), refined = run(engine, plain).images, run(engine, replace(plain, refiner=chosen))
    (image,) = refined.images
    changes = usual.variants["before-highres-fix"] != image.variants["before-highres-fix"]
    assert changes == first
    assert refined.extra.get("Hires refiner") == told
    assert refined.extra["Refiner"] == "tinyB"


def test_refiner_with_other_inputs_is_refused(
    engine: Engine, job: Job, refiner: Refiner, golden: Path
):
    inpainting = replace(refiner, checkpoint=golden_file(golden, "tinyInpaint"))
    with pytest.raises(ModelUnusable, match="refiner_checkpoint"):
        run(engine, replace(job, refiner=inpainting))
    assert run(engine, job).images


def test_share_of_the_calls_is_told_of_every_picture(engine: Engine, job: Job, refiner: Refiner):
    options = SamplingOptions(refiner_counts_calls=True)
    key = "Refiner switch by sampling steps"
    assert run(engine, replace(job, options=options)).extra == {key: True}
    refined = run(engine, replace(job, options=options, refiner=refiner))
    assert list(refined.extra) == [key, "Refiner", "Refiner switch at"]


def watch(**changes: Any) -> list[tuple[int, int]]:
    """The calls and time steps at which a handover of 10 calls is due."""
    settings: dict[str, Any] = {"switch_at": 0.5, "planned_calls": None, "keys": {}, "extra": {}}
    due: list[tuple[int, int]] = []
    for calls in range(10):
        time_step = 999 - 100 * calls
        taken: list[int] = []
        handover = Handover(**(settings | changes | {"take_over": lambda t=taken: t.append(1)}))
        handover.successor(calls, time_step)
        due += [(calls, time_step)] * len(taken)
    return due


def test_handover_is_due_once_enough_noise_is_gone_or_enough_calls_are_made():
    assert watch()[0] == (5, 499)
    assert watch(switch_at=0.61)[0] == (7, 299)
    assert watch(switch_at=None)[0] == (0, 999)
    assert watch(planned_calls=5)[0] == (3, 699)
