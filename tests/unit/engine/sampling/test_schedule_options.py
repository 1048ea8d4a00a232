"""Schedules as options make them, and those that no sampler can follow."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import alphas_cumprod
from sdapi.engine.jobs.job import ModelFile, SamplingOptions
from sdapi.engine.sampling.job_schedule import schedule_sigmas
from sdapi.engine.sampling.sampler_names import SCHEDULERS
from sdapi.engine.sampling.schedules import ModelSigmas
from sdapi.errors import BadRequest
from tests.engines import tiny_job

MODEL = ModelSigmas(alphas_cumprod(0.00085, 0.012))


def made(scheduler: str, steps: int = 5, **options: Any) -> torch.Tensor:
    job = replace(tiny_job(ModelFile(Path("x"))), scheduler=scheduler)
    job = replace(job, options=SamplingOptions(**options))
    return schedule_sigmas(job, MODEL, Family.SD1, steps, {})


@pytest.mark.parametrize(
    ("scheduler", "options", "named"),
    [
        ("Beta", {"beta_alpha": 0.0}, "beta_dist_alpha: 0, beta_dist_beta: 0.6"),
        ("Beta", {"beta_beta": -2.0}, "beta_dist_alpha: 0.6, beta_dist_beta: -2"),
        ("Karras", {"rho": 1e-6}, "rho: 1e-06"),
        ("Karras", {"rho": 0.01}, "rho: 0.01"),
        ("Polyexponential", {"rho": -3.0}, "rho: -3"),
        ("Exponential", {"sigma_min": 20.0}, "sigma_min: 20"),
        ("KL Optimal", {"sigma_min": 9.0, "sigma_max": 2.0}, "sigma_min: 9, sigma_max: 2"),
    ],
)
def test_schedule_that_does_not_fall_is_refused_by_its_options(
    scheduler: str, options: dict[str, Any], named: str
):
    with pytest.raises(BadRequest) as refused:
        made(scheduler, **options)
    assert refused.value.detail.startswith(f"{named} gives scheduler '{scheduler}' no usable noise")


@pytest.mark.parametrize("scheduler", [each.label for each in SCHEDULERS])
@pytest.mark.parametrize("steps", [1, 2, 20, 1500])
def test_every_schedule_falls_for_any_number_of_steps(scheduler: str, steps: int):
    sigmas = made(scheduler, steps)
    assert (sigmas[1:] <= sigmas[:-1]).all()


def test_odd_numbers_that_leave_a_falling_schedule_are_taken():
    for options in ({"rho": -7.0}, {"sigma_max": 1e9}, {"sigma_min": 1e-9}):
        assert len(made("Karras", **options)) == 6
