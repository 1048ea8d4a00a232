"""Samplers: from noise to a latent. One function each, pure but for the noise it draws.

Sigma-space samplers take a `SigmaDenoiser`-like callable and a falling list of sigmas, float32 on
the CPU; sigma arithmetic stays float32, as in the reference. Formulae: k-diffusion's, at the state
the contract pins (webui-generation 5).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
EpsModel = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, slots=True)
class Run:
    """What a sampler may use besides the model: its noise, its settings, and who listens."""

    #: the next draw of every image's own generator
    noise: Callable[[], Tensor]
    #: noise for the way from one sigma to another; Brownian for samplers that ask for it
    noise_between: Callable[[Tensor, Tensor], Tensor]
    on_step: Callable[[int], None]
    eta: float = 1.0
    s_noise: float = 1.0
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = float("inf")


Sampler = Callable[[Denoiser, Tensor, Tensor, Run], Tensor]


def sample_euler(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """Euler steps with optional churn, Karras et al. 2022, algorithm 2 without its correction."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = _churn(x, sigma, len(sigmas) - 1, run)
        denoised = denoise(x, sigma_hat)
        x = x + _slope(x, sigma_hat, denoised) * (sigma_next - sigma_hat)
        run.on_step(i)
    return x


def sample_euler_ancestral(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """Euler steps below the next sigma, then noise up to it."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, run.eta)
        x = x + _slope(x, sigma, denoised) * (sigma_down - sigma)
        if sigma_next > 0:
            x = x + run.noise() * run.s_noise * sigma_up
        run.on_step(i)
    return x


def sample_dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2; the last step is of first order."""
    previous: Tensor | None = None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        step = _log_snr(sigma_next) - _log_snr(sigma)
        target = denoised
        if previous is not None and sigma_next > 0:
            ratio = (_log_snr(sigma) - _log_snr(sigmas[i - 1])) / step
            target = (1 + 1 / (2 * ratio)) * denoised - (1 / (2 * ratio)) * previous
        x = (sigma_next / sigma) * x - torch.expm1(-step) * target
        previous = denoised
        run.on_step(i)
    return x


def sample_dpmpp_sde(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """DPM-Solver++(2S) for the stochastic equation, midpoint at half a step in log SNR."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next == 0:
            x = x + _slope(x, sigma, denoised) * (sigma_next - sigma)
        else:
            t, t_next = _log_snr(sigma), _log_snr(sigma_next)
            middle = (-(t + (t_next - t) * 0.5)).exp()
            x_middle = _sde_step(x, denoised, sigma, middle, run)
            denoised = denoise(x_middle, middle)
            x = _sde_step(x, denoised, sigma, sigma_next, run)
        run.on_step(i)
    return x


def _sde_step(x: Tensor, denoised: Tensor, sigma: Tensor, target: Tensor, run: Run) -> Tensor:
    sigma_down, sigma_up = ancestral_step(sigma, target, run.eta)
    step = _log_snr(sigma_down) - _log_snr(sigma)
    x = (sigma_down / sigma) * x - torch.expm1(-step) * denoised
    return x + run.noise_between(sigma, target) * run.s_noise * sigma_up


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Split a step: the sigma to step down to, and the noise to add after it."""
    if eta == 0:
        return sigma_next, torch.zeros(())
    variance = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    sigma_up = torch.minimum(sigma_next, eta * variance**0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def _churn(x: Tensor, sigma: Tensor, steps: int, run: Run) -> tuple[Tensor, Tensor]:
    """Raise the noise level before a step, where `s_churn` says so."""
    if run.s_churn <= 0:
        return x, sigma
    # Drawn at every step, used or not: the images' generators must not depend on the window.
    noise = run.noise() * run.s_noise
    if not run.s_tmin <= float(sigma) <= run.s_tmax:
        return x, sigma
    sigma_hat = sigma * (1 + min(run.s_churn / steps, 2**0.5 - 1))
    return x + noise * (sigma_hat**2 - sigma**2) ** 0.5, sigma_hat


def _slope(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    return (x - denoised) / sigma


def _log_snr(sigma: Tensor) -> Tensor:
    return -sigma.log()


def ddim_timesteps(steps: int, train_steps: int = 1000) -> list[int]:
    """Rising time steps; more than `steps` when it does not divide the training steps."""
    stride = train_steps // steps
    return [min(t + 1, train_steps - 1) for t in range(0, train_steps, stride)]


def sample_ddim(
    predict_noise: EpsModel, x: Tensor, timesteps: list[int], alphas_cumprod: Tensor, run: Run
) -> Tensor:
    """DDIM, Song et al. 2020, equation 12; one call fewer than there are time steps."""
    alphas = alphas_cumprod.double().cpu()
    before = [0, *timesteps[:-1]]
    for i, index in enumerate(range(len(timesteps) - 1, 0, -1)):
        noise = predict_noise(x, timesteps[index])
        alpha, alpha_next = float(alphas[timesteps[index]]), float(alphas[before[index]])
        variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
        sigma = run.eta * variance**0.5
        clean = (x - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        x = alpha_next**0.5 * clean + (1 - alpha_next - sigma**2) ** 0.5 * noise
        if run.eta:
            x = x + sigma * run.noise()
        run.on_step(i)
    return x


SIGMA_SAMPLERS: dict[str, Sampler] = {
    "DPM++ 2M": sample_dpmpp_2m,
    "DPM++ SDE": sample_dpmpp_sde,
    "Euler a": sample_euler_ancestral,
    "Euler": sample_euler,
}

#: Sigma-space samplers that read no eta; the infotext of their pictures tells none.
WITHOUT_ETA = frozenset({"DPM++ 2M", "DPM2", "Euler", "Heun", "LCM", "LMS", "Restart"})

TIMESTEP_SAMPLERS = {
    "DDIM": sample_ddim,
}
