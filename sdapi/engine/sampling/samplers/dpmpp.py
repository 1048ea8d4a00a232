"""DPM-Solver++ (Lu et al. 2022) in its deterministic, ancestral and stochastic forms."""

from itertools import pairwise

import torch
from torch import Tensor

from sdapi.engine.sampling.samplers.run import (
    Denoiser,
    Run,
    ancestral_step,
    log_snr,
    midpoint,
    sigma_at,
    slope,
)


def sample_dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """DPM-Solver++(2M), algorithm 2; the last step is of first order."""
    previous: Tensor | None = None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        step = log_snr(sigma_next) - log_snr(sigma)
        target = denoised
        if previous is not None and sigma_next > 0:
            ratio = (log_snr(sigma) - log_snr(sigmas[i - 1])) / step
            target = (1 + 1 / (2 * ratio)) * denoised - (1 / (2 * ratio)) * previous
        x = (sigma_next / sigma) * x - torch.expm1(-step) * target
        previous = denoised
        run.on_step(i)
    return x


def sample_dpmpp_2s_ancestral(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """DPM-Solver++(2S), algorithm 1, below the next sigma, then noise up to it."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, run.eta)
        if sigma_down == 0:
            x = x + slope(x, sigma, denoised) * (sigma_down - sigma)
        else:
            middle = midpoint(sigma, sigma_down)
            denoised = denoise(_exponential_step(x, denoised, sigma, middle), middle)
            x = _exponential_step(x, denoised, sigma, sigma_down)
        if sigma_next > 0:
            x = x + run.noise() * run.s_noise * sigma_up
        run.on_step(i)
    return x


def sample_dpmpp_sde(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """DPM-Solver++(2S) for the stochastic equation, midpoint at half a step in log SNR."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next == 0:
            x = x + slope(x, sigma, denoised) * (sigma_next - sigma)
        else:
            t, t_next = log_snr(sigma), log_snr(sigma_next)
            middle = sigma_at(t + (t_next - t) * 0.5)
            x_middle = _noised_step(x, denoised, sigma, middle, run)
            denoised = denoise(x_middle, middle)
            x = _noised_step(x, denoised, sigma, sigma_next, run)
        run.on_step(i)
    return x


def sample_dpmpp_2m_sde(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """DPM-Solver++(2M) for the stochastic equation, second order by the midpoint rule."""
    return _sample_2m_sde(denoise, x, sigmas, run, uses_heun=False)


def sample_dpmpp_2m_sde_heun(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """DPM-Solver++(2M) for the stochastic equation, second order by Heun's rule."""
    return _sample_2m_sde(denoise, x, sigmas, run, uses_heun=True)


def _sample_2m_sde(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run, *, uses_heun: bool
) -> Tensor:
    previous: Tensor | None = None
    previous_step = torch.zeros(())
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            step = log_snr(sigma_next) - log_snr(sigma)
            noised = run.eta * step
            decay = -torch.expm1(-step - noised)
            x = sigma_next / sigma * (-noised).exp() * x + decay * denoised
            if previous is not None:
                weight = decay / (-step - noised) + 1 if uses_heun else 0.5 * decay
                x = x + weight / (previous_step / step) * (denoised - previous)
            x = x + _sde_noise(sigma, sigma_next, noised, run)
            previous_step = step
        previous = denoised
        run.on_step(i)
    return x


def sample_dpmpp_3m_sde(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """DPM-Solver++(3M) for the stochastic equation."""
    history: list[tuple[Tensor, Tensor]] = []  # (denoised, step) of the latest two steps
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            step = log_snr(sigma_next) - log_snr(sigma)
            total = step * (run.eta + 1)
            x = (-total).exp() * x - torch.expm1(-total) * denoised
            x = x + _multistep_correction(denoised, step, total, history)
            x = x + _sde_noise(sigma, sigma_next, run.eta * step, run)
            history = [(denoised, step), *history[:1]]
        run.on_step(i)
    return x


def _multistep_correction(
    denoised: Tensor, step: Tensor, total: Tensor, history: list[tuple[Tensor, Tensor]]
) -> Tensor | float:
    """What the latest one or two predictions add to a first-order step."""
    if not history:
        return 0.0
    phi_2 = torch.expm1(-total) / total + 1
    (last, last_step), *older = history
    r0 = last_step / step
    d0 = (denoised - last) / r0
    if not older:
        return phi_2 * d0
    before, before_step = older[0]
    r1 = before_step / step
    d1 = (last - before) / r1
    first = d0 + (d0 - d1) * r0 / (r0 + r1)
    second = (d0 - d1) / (r0 + r1)
    return phi_2 * first - (phi_2 / total - 0.5) * second


def _sde_noise(sigma: Tensor, sigma_next: Tensor, noised: Tensor, run: Run) -> Tensor | float:
    if run.eta == 0:
        return 0.0
    scale = sigma_next * (-torch.expm1(-2 * noised)).sqrt() * run.s_noise
    return run.noise_between(sigma, sigma_next) * scale


def _exponential_step(x: Tensor, denoised: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    """The exact solution from one sigma to another if the prediction did not change."""
    step = log_snr(target) - log_snr(sigma)
    return (target / sigma) * x - torch.expm1(-step) * denoised


def _noised_step(x: Tensor, denoised: Tensor, sigma: Tensor, target: Tensor, run: Run) -> Tensor:
    sigma_down, sigma_up = ancestral_step(sigma, target, run.eta)
    x = _exponential_step(x, denoised, sigma, sigma_down)
    return x + run.noise_between(sigma, target) * run.s_noise * sigma_up
