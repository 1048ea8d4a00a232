"""What every sampler shares: its interface, its noise, and the arithmetic of one step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: (latents, sigma) -> predicted clean latents
Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Run:
    """What a sampler may use besides the model: its noise, its settings, and who listens."""

    #: the next draw of every image's own generator
    noise: Callable[[], Tensor]
    #: noise for the way from one sigma to another; Brownian for samplers that ask for it
    noise_between: Callable[[Tensor, Tensor], Tensor]
    on_step: Callable[[int], None]
    eta: float = 1.0
    #: what the request calls it, for refusals
    eta_name: str = "eta"
    s_noise: float = 1.0
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = float("inf")


Sampler = Callable[[Denoiser, Tensor, Tensor, Run], Tensor]


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Split a step: the sigma to step down to, and the noise to add after it."""
    if eta == 0:
        return sigma_next, torch.zeros(())
    variance = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    sigma_up = torch.minimum(sigma_next, eta * variance**0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def churn(x: Tensor, sigma: Tensor, steps: int, run: Run) -> tuple[Tensor, Tensor]:
    """Raise the noise level before a step, where `s_churn` says so."""
    if run.s_churn <= 0:
        return x, sigma
    # Drawn at every step, used or not: the images' generators must not depend on the window.
    noise = run.noise() * run.s_noise
    if not run.s_tmin <= float(sigma) <= run.s_tmax:
        return x, sigma
    sigma_hat = sigma * (1 + min(run.s_churn / steps, 2**0.5 - 1))
    return x + noise * (sigma_hat**2 - sigma**2) ** 0.5, sigma_hat


def slope(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """dx/dsigma of the probability flow, Karras et al. 2022, equation 3."""
    return (x - denoised) / sigma


def log_snr(sigma: Tensor) -> Tensor:
    """Half the log of the signal-to-noise ratio: the time that DPM-Solver steps in."""
    return -sigma.log()


def sigma_at(t: Tensor) -> Tensor:
    """The sigma at a half log signal-to-noise ratio."""
    return (-t).exp()


def midpoint(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The sigma half-way in log sigma."""
    return sigma.log().lerp(sigma_next.log(), 0.5).exp()
