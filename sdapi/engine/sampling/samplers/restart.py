"""Restart sampling (Xu et al. 2023): going back up in noise and down again improves the result."""

from itertools import pairwise

from torch import Tensor

from sdapi.engine.sampling.samplers.explicit import heun_step
from sdapi.engine.sampling.samplers.run import Denoiser, Run
from sdapi.engine.sampling.schedules import karras_sigmas

_LOW, _HIGH = 0.1, 2.0


def sample_restart(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """Heun steps; from 20 steps on one restart between sigma 0.1 and 2, from 36 on two."""
    last: Tensor | None = None
    for i, (sigma, sigma_next) in enumerate(_steps(sigmas)):
        if last is not None and last < sigma:
            x = x + run.noise() * run.s_noise * (sigma**2 - last**2) ** 0.5
        x = heun_step(denoise, x, sigma, sigma_next)
        last = sigma_next
        run.on_step(i)
    return x


def _steps(sigmas: Tensor) -> list[tuple[Tensor, Tensor]]:
    count = len(sigmas) - 1
    if count < 20:
        return list(pairwise(sigmas))
    length, times = (count // 4, 2) if count >= 36 else (9, 1)
    sigmas = karras_sigmas(count - length * times, float(sigmas[-2]), float(sigmas[0]))
    low = int((sigmas - _LOW).abs().argmin())
    high = int((sigmas - _HIGH).abs().argmin())
    steps: list[tuple[Tensor, Tensor]] = []
    for i, step in enumerate(pairwise(sigmas)):
        steps.append(step)
        if i + 1 == low and high < low:
            back = karras_sigmas(length + 1, float(sigmas[low]), float(sigmas[high]))[:-1]
            steps += list(pairwise(back)) * times
    return steps


def sample_lcm(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """Latent consistency models (Luo et al. 2023): jump to the prediction, then noise it again."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x = denoise(x, sigma)
        if sigma_next > 0:
            x = x + run.noise() * sigma_next
        run.on_step(i)
    return x
