"""What samplers are told besides the schedule, and what the infotext says of it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sdapi.engine.jobs.job import Churn, Job, ModelFile, SamplingOptions
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.sampling.noise import ImageNoise, NoiseSource, Seeds
from sdapi.engine.sampling.run_settings import RunSources, sigma_settings
from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.engine.sampling.samplers import Run
from sdapi.errors import BadRequest

SIGMAS = torch.tensor([10.0, 3.0, 1.0, 0.0])
SHAPE = (4, 8, 8)
OPTION = Churn(churn=8.0, tmin=0.05, noise=1.02)


def job(sampler: str, **options: Any) -> Job:
    return Job(
        id="a",
        prompts=("",),
        negative_prompts=("",),
        seeds=(7, 8),
        subseeds=(0, 0),
        checkpoint=ModelFile(Path("x")),
        sampler=find_sampler(sampler),
        scheduler="Automatic",
        steps=3,
        cfg_scale=7.0,
        width=64,
        height=64,
        options=SamplingOptions(**options),
    )


def settings(job: Job, extra: dict[str, Any]) -> Run:
    source = NoiseSource(job.options.randn_source, torch.device("cpu"))
    noise = ImageNoise(source, SHAPE, Seeds(job.seeds, job.subseeds))
    return sigma_settings(job, RunSources(noise, Monitor()), SIGMAS, SIGMAS, extra)


def test_option_of_churn_wins_and_only_then_is_written():
    extra: dict[str, Any] = {}
    asked = replace(job("Euler", churn=OPTION), churn=Churn(churn=5.0, tmax=50.0))
    run = settings(asked, extra)
    assert (run.s_churn, run.s_tmin, run.s_tmax, run.s_noise) == (8.0, 0.05, 50.0, 1.02)
    assert extra == {"Sigma churn": 8.0, "Sigma tmin": 0.05, "Sigma noise": 1.02}


def test_request_alone_acts_unwritten():
    extra: dict[str, Any] = {}
    run = settings(replace(job("Heun"), churn=Churn(churn=5.0, noise=0.9)), extra)
    assert (run.s_churn, run.s_noise) == (5.0, 0.9)
    assert extra == {}


@pytest.mark.parametrize("sampler", ["Euler a", "DPM adaptive", "Restart", "DPM++ 2M", "LCM"])
def test_samplers_that_do_not_read_churn_are_left_alone(sampler: str):
    extra: dict[str, Any] = {}
    asked = replace(job(sampler, churn=OPTION), churn=Churn(churn=5.0, noise=0.9))
    run = settings(asked, extra)
    assert (run.s_churn, run.s_noise) == (0.0, 1.0)
    assert extra == {}


def test_s_noise_alone_reaches_the_stochastic_samplers():
    extra: dict[str, Any] = {}
    run = settings(job("DPM++ 2M SDE", churn=OPTION), extra)
    assert (run.s_churn, run.s_noise) == (0.0, 1.02)
    assert extra == {"Sigma noise": 1.02}


def test_without_batch_determinism_one_tree_serves_the_batch():
    each = settings(job("DPM++ SDE"), {})
    one = settings(job("DPM++ SDE", no_batch_determinism=True), {})
    draws = [run.noise_between(SIGMAS[0], SIGMAS[1]) for run in (each, one)]
    assert draws[0].shape == draws[1].shape == (2, *SHAPE)
    assert not torch.equal(*draws)


def test_emulated_source_draws_its_whole_brownian_path_from_the_emulation():
    nv, cpu = (settings(job("DPM++ SDE", randn_source=name), {}) for name in ("NV", "CPU"))
    whole = [run.noise_between(SIGMAS[0], SIGMAS[2]) for run in (nv, cpu)]
    assert (whole[0] - whole[1]).abs().min() > 0


@pytest.mark.parametrize("sampler", ["Euler a", "DPM fast", "DPM++ SDE"])
def test_eta_that_leaves_no_noise_to_step_down_from_is_refused(sampler: str):
    asked = replace(job(sampler), eta=-1.5)
    with pytest.raises(
        BadRequest, match=rf"^eta: -1\.5 is too low for sampler '{re.escape(sampler)}'"
    ):
        settings(asked, {})
    with pytest.raises(BadRequest, match=r"^eta_ancestral: -3 "):
        settings(job(sampler, eta_ancestral=-3.0), {})
    assert settings(replace(asked, eta=-1.0), {}).eta == -1.0


def test_negative_eta_is_refused_where_noise_decays_with_it_and_ignored_where_nobody_reads_it():
    with pytest.raises(BadRequest, match=r"^eta: -0\.5 .* at least 0"):
        settings(replace(job("DPM++ 2M SDE"), eta=-0.5), {})
    assert settings(replace(job("Euler"), eta=-3.0), {}).eta == -3.0
