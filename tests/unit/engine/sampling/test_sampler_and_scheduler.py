"""Every sampler with every scheduler: a picture, or a refusal that names what was wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import alphas_cumprod
from sdapi.engine.jobs.job import ModelFile, SamplingOptions, UniPCOptions
from sdapi.engine.sampling.job_schedule import schedule_sigmas
from sdapi.engine.sampling.sampler_names import SCHEDULERS, find_sampler
from sdapi.engine.sampling.samplers import (
    RANGE_SAMPLERS,
    SIGMA_SAMPLERS,
    TIMESTEP_SAMPLERS,
    WITH_DISTINCT_SIGMAS,
    Prediction,
    Run,
    SigmaRange,
    ddim_timesteps,
    sample_unipc,
)
from sdapi.engine.sampling.schedules import LCMSigmas, ModelSigmas
from sdapi.errors import BadRequest
from tests.engines import tiny_job

ALPHAS = alphas_cumprod(0.00085, 0.012)
MODEL = ModelSigmas(ALPHAS)
#: a model with few noise levels, so that few steps are more than it has
COARSE = ModelSigmas(ALPHAS[::50])
LABELS = [each.label for each in SCHEDULERS]


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    return x * 0.25 / (0.25 + sigma**2)


def run_settings(eta: float = 1.0) -> Run:
    generator = torch.Generator().manual_seed(1)

    def noise() -> Tensor:
        return torch.randn(1, 4, 2, 2, generator=generator)

    def between(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        length = (sigma_next - sigma).abs().sqrt()
        return noise() * length / length  # as Brownian noise: none for a step of no length

    return Run(noise, between, lambda _: None, eta=eta)


def levels(sampler: str, scheduler: str, steps: int, model: ModelSigmas, **options: Any) -> Tensor:
    job = tiny_job(ModelFile(Path("x")), sampler=find_sampler(sampler), scheduler=scheduler)
    job = replace(job, options=SamplingOptions(**options))
    return schedule_sigmas(job, model, Family.SD1, steps, {})


def drawn(sampler: str, sigmas: Tensor, eta: float) -> Tensor:
    """Latents after a sampler has followed a schedule, as txt2img or img2img would have it."""
    x = torch.full((1, 4, 2, 2), float(sigmas[0]))
    if sampler in RANGE_SAMPLERS:
        bounds = SigmaRange(sigmas[0], sigmas[max(len(sigmas) - 2, 0)], len(sigmas) - 1)
        return RANGE_SAMPLERS[sampler](denoise, x, bounds, run_settings(eta))
    return SIGMA_SAMPLERS[sampler](denoise, x, sigmas, run_settings(eta))


@pytest.mark.parametrize("scheduler", LABELS)
@pytest.mark.parametrize("sampler", [*SIGMA_SAMPLERS, *RANGE_SAMPLERS])
@settings(max_examples=3)
@given(steps=st.integers(1, 70), eta=st.sampled_from([0.0, 1.0]))
def test_a_pair_draws_finite_numbers_or_is_refused_by_its_steps(
    sampler: str, scheduler: str, steps: int, eta: float
):
    model = LCMSigmas(ALPHAS) if sampler == "LCM" else COARSE
    repeats = scheduler == "Simple" and steps > len(model.sigmas)
    if repeats and sampler in WITH_DISTINCT_SIGMAS - set(RANGE_SAMPLERS):
        with pytest.raises(BadRequest, match=f"^steps: {steps} gives scheduler 'Simple'"):
            levels(sampler, scheduler, steps, model)
        return
    sigmas = levels(sampler, scheduler, steps, model)
    assert drawn(sampler, sigmas, eta).isfinite().all()


@pytest.mark.parametrize("sampler", sorted(WITH_DISTINCT_SIGMAS - set(RANGE_SAMPLERS)))
def test_more_steps_than_a_model_has_levels_are_refused_where_they_would_break(sampler: str):
    assert levels(sampler, "Simple", 999, MODEL).isfinite().all()
    with pytest.raises(BadRequest) as refused:
        levels(sampler, "Simple", 1500, MODEL)
    assert refused.value.detail == (
        "steps: 1500 gives scheduler 'Simple' one noise level several times, which sampler "
        f"'{sampler}' cannot follow; take fewer steps, another scheduler, or a sampler such as "
        "'Euler'"
    )


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DPM2", "Restart", "DPM fast"])
def test_they_are_taken_where_a_sampler_can_follow_them(sampler: str):
    sigmas = levels(sampler, "Simple", 1500, MODEL)
    assert drawn(sampler, sigmas, 1.0).isfinite().all()


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "DPM fast", "LMS"])
def test_a_range_of_one_level_is_refused_by_its_options(sampler: str):
    with pytest.raises(BadRequest, match=r"^sigma_min: 1, sigma_max: 1 gives scheduler 'Karras'"):
        levels(sampler, "Karras", 5, MODEL, sigma_min=1.0, sigma_max=1.0)


def test_beta_that_bunches_its_levels_is_refused_by_its_options():
    with pytest.raises(BadRequest, match=r"^beta_dist_alpha: 0.02, beta_dist_beta: 0.02 gives"):
        levels("DPM++ 2M", "Beta", 50, MODEL, beta_alpha=0.02, beta_beta=0.02)


@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [(label, 1000 if label == "Simple" else 10_000) for label in LABELS],
)
def test_large_numbers_of_steps_have_distinct_levels(scheduler: str, steps: int):
    levels("DPM++ 2M", scheduler, steps, MODEL)


def predict(x: Tensor, timestep: float) -> Prediction:
    noise = x * 0.5
    return Prediction(noise, noise)


def test_samplers_over_time_steps_take_more_steps_than_there_are():
    times, x = ddim_timesteps(1500), torch.ones(1, 4, 2, 2)
    for sample in TIMESTEP_SAMPLERS.values():
        assert sample(predict, x, times, ALPHAS, run_settings()).isfinite().all()
    found = sample_unipc(predict, x, 1.0, len(times), ALPHAS, run_settings(), UniPCOptions())
    assert found.isfinite().all()
