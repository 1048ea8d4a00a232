"""Classical solvers of the probability flow: Euler, Heun, midpoint and multistep."""

from itertools import pairwise

import numpy as np
from torch import Tensor

from sdapi.engine.sampling.samplers.run import (
    Denoiser,
    Run,
    ancestral_step,
    churn,
    midpoint,
    slope,
)

_LMS_ORDER = 4


def sample_euler(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """Euler steps with optional churn, Karras et al. 2022, algorithm 2 without its correction."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn(x, sigma, len(sigmas) - 1, run)
        denoised = denoise(x, sigma_hat)
        x = x + slope(x, sigma_hat, denoised) * (sigma_next - sigma_hat)
        run.on_step(i)
    return x


def sample_euler_ancestral(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """Euler steps below the next sigma, then noise up to it."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, run.eta)
        x = x + slope(x, sigma, denoised) * (sigma_down - sigma)
        if sigma_next > 0:
            x = x + run.noise() * run.s_noise * sigma_up
        run.on_step(i)
    return x


def sample_heun(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """Karras et al. 2022, algorithm 2."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn(x, sigma, len(sigmas) - 1, run)
        x = heun_step(denoise, x, sigma_hat, sigma_next)
        run.on_step(i)
    return x


def heun_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """One trapezoidal step, a plain Euler step when it ends at zero."""
    first = slope(x, sigma, denoise(x, sigma))
    step = sigma_next - sigma
    if sigma_next == 0:
        return x + first * step
    ahead = x + first * step
    second = slope(ahead, sigma_next, denoise(ahead, sigma_next))
    return x + (first + second) / 2 * step


def sample_dpm_2(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """Midpoint steps in log sigma, inspired by DPM-Solver-2 (Lu et al. 2022)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn(x, sigma, len(sigmas) - 1, run)
        x = _midpoint_step(denoise, x, sigma_hat, sigma_next)
        run.on_step(i)
    return x


def sample_dpm_2_ancestral(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """Midpoint steps below the next sigma, then noise up to it."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, run.eta)
        x = _midpoint_step(denoise, x, sigma, sigma_down)
        if sigma_down > 0:
            x = x + run.noise() * run.s_noise * sigma_up
        run.on_step(i)
    return x


def _midpoint_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    first = slope(x, sigma, denoise(x, sigma))
    if sigma_next == 0:
        return x + first * (sigma_next - sigma)
    middle = midpoint(sigma, sigma_next)
    ahead = x + first * (middle - sigma)
    second = slope(ahead, middle, denoise(ahead, middle))
    return x + second * (sigma_next - sigma)


def sample_lms(denoise: Denoiser, x: Tensor, sigmas: Tensor, run: Run) -> Tensor:
    """Linear multistep of order 4: Adams-Bashforth over uneven steps."""
    grid = sigmas.double().numpy()
    slopes: list[Tensor] = []
    for i, sigma in enumerate(sigmas[:-1]):
        slopes.insert(0, slope(x, sigma, denoise(x, sigma)))
        del slopes[_LMS_ORDER:]
        order = min(i + 1, _LMS_ORDER)
        weights = [_lms_weight(order, grid, i, j) for j in range(order)]
        x = x + sum(weight * each for weight, each in zip(weights, slopes, strict=True))
        run.on_step(i)
    return x


def _lms_weight(
    order: int, grid: "np.ndarray[tuple[int], np.dtype[np.float64]]", i: int, j: int
) -> float:
    """The integral over step `i` of the Lagrange polynomial that is 1 at point `i - j`."""
    polynomial = np.polynomial.Polynomial([1.0])
    for k in range(order):
        if k != j:
            root = np.polynomial.Polynomial([-grid[i - k], 1.0])
            polynomial = polynomial * root / (grid[i - j] - grid[i - k])
    integral = polynomial.integ()
    return float(integral(grid[i + 1]) - integral(grid[i]))
