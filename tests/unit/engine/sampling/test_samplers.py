import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import alphas_cumprod
from sdapi.engine.jobs.job import UniPCOptions
from sdapi.engine.sampling.samplers import (
    RANGE_SAMPLERS,
    SIGMA_SAMPLERS,
    TIMESTEP_SAMPLERS,
    Prediction,
    Run,
    SigmaRange,
    ddim_timesteps,
    sample_unipc,
)
from sdapi.engine.sampling.samplers.dpmpp import sample_dpmpp_2m
from sdapi.engine.sampling.samplers.explicit import (
    sample_euler,
    sample_euler_ancestral,
)
from sdapi.engine.sampling.samplers.run import ancestral_step
from sdapi.engine.sampling.samplers.timestep import sample_ddim
from sdapi.engine.sampling.schedules import SCHEDULES, ModelSigmas, ScheduleRequest
from sdapi.errors import BadRequest

#: spread of the toy data: its ideal denoiser is linear, and the exact solution is known
SPREAD = 0.5
ALPHAS = alphas_cumprod(0.00085, 0.012)
MODEL = ModelSigmas(ALPHAS)


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """What a perfect model answers for data that is normal with deviation SPREAD."""
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def exact(x: Tensor, sigma: float) -> Tensor:
    """The end of the probability flow that starts with `x` at `sigma`."""
    return x * SPREAD / math.sqrt(SPREAD**2 + sigma**2)


def settings(on_step: Callable[[int], None] = lambda _: None, eta: float = 1.0, **more: float):
    generator = torch.Generator().manual_seed(1)

    def noise(*_: object) -> Tensor:
        return torch.randn(1, 4, 8, 8, generator=generator)

    return Run(noise, noise, on_step, eta=eta, **more)


def sigmas(steps: int, schedule: str = "karras") -> Tensor:
    return SCHEDULES[schedule](ScheduleRequest(steps, MODEL, MODEL.min, MODEL.max))


def start(levels: Tensor) -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)) * levels[0]


@pytest.mark.parametrize(
    ("sample", "limit"), [(sample_euler, 0.02), (sample_dpmpp_2m, 0.005)], ids=["euler", "2m"]
)
def test_many_steps_reach_the_exact_solution(sample: Callable[..., Tensor], limit: float):
    levels = sigmas(200)
    x = start(levels)
    found = sample(denoise, x, levels, settings())
    assert float((found - exact(x, float(levels[0]))).abs().max()) < limit


def test_euler_gets_closer_with_more_steps():
    errors = []
    for steps in (5, 20, 80):
        levels = sigmas(steps)
        x = start(levels)
        found = sample_euler(denoise, x, levels, settings())
        errors.append(float((found - exact(x, float(levels[0]))).abs().max()))
    assert errors == sorted(errors, reverse=True)


def test_euler_ancestral_without_noise_is_euler():
    levels = sigmas(8)
    x = start(levels)
    plain = sample_euler(denoise, x, levels, settings())
    assert torch.equal(sample_euler_ancestral(denoise, x, levels, settings(eta=0.0)), plain)


@pytest.mark.parametrize("name", SIGMA_SAMPLERS)
def test_sampler_reports_every_step_once(name: str):
    steps: list[int] = []
    levels = sigmas(6)
    SIGMA_SAMPLERS[name](denoise, start(levels), levels, settings(steps.append))
    assert steps == list(range(6))


@pytest.mark.parametrize("name", SIGMA_SAMPLERS)
def test_one_step_from_the_top_is_the_prediction(name: str):
    levels = sigmas(1)
    x = start(levels)
    found = SIGMA_SAMPLERS[name](denoise, x, levels, settings())
    assert torch.allclose(found, denoise(x, levels[0]), atol=1e-5)


def test_ancestral_step_keeps_the_variance():
    down, up = ancestral_step(torch.tensor(3.0), torch.tensor(2.0), 1.0)
    assert float(down**2 + up**2) == pytest.approx(4.0)


def test_churn_outside_its_window_draws_but_changes_nothing():
    levels = sigmas(5)
    x = start(levels)
    plain = sample_euler(denoise, x, levels, settings())
    outside = settings(s_churn=10.0, s_tmin=1000.0)
    assert torch.equal(sample_euler(denoise, x, levels, outside), plain)
    inside = settings(s_churn=10.0)
    assert not torch.equal(sample_euler(denoise, x, levels, inside), plain)


def predict_noise(x: Tensor, timestep: float) -> Prediction:
    """The toy model, asked for the noise: with x = sqrt(a) x0 + sqrt(1 - a) n."""
    alpha = float(ALPHAS[int(timestep)])
    noise = x * (1 - alpha) ** 0.5 / (alpha * SPREAD**2 + 1 - alpha)
    return Prediction(noise, noise)


def test_ddim_without_eta_draws_nothing_and_repeats_itself():
    def never(*_: object) -> Tensor:
        raise AssertionError("drew noise")

    run = Run(never, never, lambda _: None, eta=0.0)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    steps = ddim_timesteps(20)
    one = sample_ddim(predict_noise, x, steps, ALPHAS, run)
    assert torch.equal(one, sample_ddim(predict_noise, x, steps, ALPHAS, run))
    noisy = sample_ddim(predict_noise, x, steps, ALPHAS, settings(eta=1.0))
    assert not torch.equal(one, noisy)


def test_ddim_reaches_the_exact_solution():
    steps = ddim_timesteps(500)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    found = sample_ddim(predict_noise, x, steps, ALPHAS, settings(eta=0.0))
    alpha = float(ALPHAS[steps[-1]])
    sigma = math.sqrt((1 - alpha) / alpha)
    expected = exact(x / alpha**0.5, sigma)
    assert float((found - expected).abs().max()) < 0.05


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 999, 1000])
def test_ddim_time_steps_rise_within_training(steps: int):
    made = ddim_timesteps(steps)
    assert made == sorted(made)
    assert len(made) >= steps
    assert 0 < made[0] <= made[-1] <= 999


@pytest.mark.parametrize(
    ("name", "limit"),
    # The adaptive one stops refining at its own tolerance of 5 %.
    [("DPM fast", 0.02), ("DPM adaptive", 0.05)],
)
def test_dpm_solver_comes_near_the_exact_solution(name: str, limit: float):
    levels = sigmas(20)
    x = start(levels)
    bounds = SigmaRange(levels[0], levels[-2], calls=60)
    found = RANGE_SAMPLERS[name](denoise, x, bounds, settings(eta=0.0))
    end = float(levels[-2])
    expected = exact(x, float(levels[0])) * math.sqrt(SPREAD**2 + end**2) / SPREAD
    assert float((found - expected).abs().max()) < limit


@pytest.mark.parametrize("name", ["PLMS", "DDIM CFG++"])
def test_timestep_sampler_reaches_the_exact_solution(name: str):
    steps = ddim_timesteps(500)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    found = TIMESTEP_SAMPLERS[name](predict_noise, x, steps, ALPHAS, settings(eta=0.0))
    alpha = float(ALPHAS[steps[-1]])
    expected = exact(x / alpha**0.5, math.sqrt((1 - alpha) / alpha))
    assert float((found - expected).abs().max()) < 0.05


@pytest.mark.parametrize("variant", ["bh1", "bh2", "vary_coeff"])
@pytest.mark.parametrize("skip_type", ["time_uniform", "time_quadratic", "logSNR"])
def test_unipc_variants_agree_with_many_steps(variant: str, skip_type: str):
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    options = UniPCOptions(variant=variant, skip_type=skip_type)
    found = sample_unipc(predict_noise, x, 1.0, 200, ALPHAS, settings(), options)
    alpha = float(ALPHAS[-1])
    expected = exact(x / alpha**0.5, math.sqrt((1 - alpha) / alpha))
    assert float((found - expected).abs().max()) < 0.05


def test_unipc_needs_as_many_steps_as_its_order():
    with pytest.raises(BadRequest, match="UniPC order must be < sampling steps"):
        sample_unipc(predict_noise, torch.zeros(1), 1.0, 2, ALPHAS, settings(), UniPCOptions())


@pytest.mark.parametrize("eta", [30.0, -30.0])
def test_ddim_refuses_to_add_more_noise_than_there_is(eta: float):
    def predict(x: Tensor, t: float) -> Prediction:
        return Prediction(x, x)

    run = Run(lambda: torch.zeros(()), lambda *_: torch.zeros(()), lambda _: None, eta=eta)
    with pytest.raises(BadRequest, match=f"^eta: {eta:g} adds more noise"):
        sample_ddim(predict, torch.ones(1, 4, 8, 8), ddim_timesteps(5), ALPHAS, run)


@pytest.mark.timeout(20)
def test_adaptive_steps_end_where_a_model_makes_nans():
    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        return x * float("nan")

    levels = SigmaRange(torch.tensor(MODEL.max), torch.tensor(MODEL.min), 5)
    found = RANGE_SAMPLERS["DPM adaptive"](broken, torch.ones(1, 4, 8, 8), levels, settings())
    assert found.isnan().all()
