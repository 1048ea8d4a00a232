"""Stable Diffusion 1's noise schedule and a sampling loop for training and evaluation."""

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 1000


def alphas_cumprod() -> Tensor:
    """Scaled-linear betas from 0.00085 to 0.012, float64 until the end."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0).float()


def sampling_sigmas(steps: int, device: str) -> tuple[Tensor, Tensor]:
    """Timesteps evenly spread over the schedule, their sigmas, and a last sigma of 0."""
    table = alphas_cumprod()
    sigmas = ((1.0 - table) / table).sqrt()
    times = torch.linspace(STEPS - 1, 0, steps).round().long()
    return times.to(device), torch.cat([sigmas[times], torch.zeros(1)]).to(device)


def sample_euler(
    predict: Callable[[Tensor, Tensor], Tensor], x: Tensor, times: Tensor, sigmas: Tensor
) -> Tensor:
    """Euler steps in sigma space (Karras et al. 2022) for a network that predicts the noise.

    `x` carries noise at sigmas[0]; `predict` takes the scaled latent and the timestep.
    """
    for time, sigma, sigma_next in zip(times, sigmas[:-1], sigmas[1:], strict=True):
        noise = predict(x / (sigma**2 + 1.0).sqrt(), time)
        x = x + noise * (sigma_next - sigma)
    return x
