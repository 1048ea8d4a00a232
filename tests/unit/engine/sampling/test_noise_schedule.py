"""Noise levels under the options that change them."""

from typing import Any

import pytest
import torch

from sdapi.engine.checkpoints.checkpoint import alphas_cumprod
from sdapi.engine.jobs.job import SamplingOptions
from sdapi.engine.sampling.noise_schedule import job_alphas
from sdapi.engine.sampling.schedules import ModelSigmas

ALPHAS = alphas_cumprod(0.00085, 0.012)


def test_default_options_change_nothing():
    extra: dict[str, Any] = {}
    assert job_alphas(ALPHAS, SamplingOptions(), extra) is ALPHAS
    assert extra == {}


def test_zero_terminal_snr_ends_in_almost_pure_noise():
    extra: dict[str, Any] = {}
    options = SamplingOptions(noise_schedule="Zero Terminal SNR")
    sigmas = ModelSigmas(job_alphas(ALPHAS, options, extra)).sigmas
    assert [float(sigmas[i]) for i in (0, -2, -1)] == pytest.approx(
        [0.02917, 2254.24, 4518.76], rel=1e-3
    )
    assert extra == {"Noise Schedule": "Zero Terminal SNR"}


def test_downcast_alphas_stay_half_through_the_sigmas():
    extra: dict[str, Any] = {}
    sigmas = ModelSigmas(job_alphas(ALPHAS, SamplingOptions(use_downcasted_alpha_bar=True), extra))
    assert sigmas.sigmas.dtype is torch.float16
    assert extra == {"Downcast alphas_cumprod": True}


def test_both_together_are_finite():
    options = SamplingOptions(noise_schedule="Zero Terminal SNR", use_downcasted_alpha_bar=True)
    extra: dict[str, Any] = {}
    assert ModelSigmas(job_alphas(ALPHAS, options, extra)).sigmas.isfinite().all()
    assert list(extra) == ["Downcast alphas_cumprod", "Noise Schedule"]
