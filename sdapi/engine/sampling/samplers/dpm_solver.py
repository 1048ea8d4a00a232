"""DPM-Solver (Lu et al. 2022, "a fast ODE solver"): with a fixed number of calls, and adaptive.

Both take the ends of a range of sigmas instead of a schedule; neither reaches zero.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdapi.engine.sampling.samplers.run import (
    Denoiser,
    Run,
    ancestral_step,
    log_snr,
    sigma_at,
)

_THIRD = 1 / 3
_RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE = 0.05, 0.0078
_FIRST_STEP = 0.05
_ACCEPT = 0.81


@dataclass(slots=True)
class _Solver:
    """Single steps of orders 1 to 3 from `x` at `t`, sharing what they evaluate."""

    denoise: Denoiser
    x: Tensor
    t: Tensor
    known: dict[float, Tensor] = field(default_factory=dict[float, Tensor])

    def first_noise(self) -> Tensor:
        """The noise predicted at the start of the step."""
        if 0.0 not in self.known:
            self.known[0.0] = self._noise(self.x, self.t)
        return self.known[0.0]

    def order1(self, t_next: Tensor) -> Tensor:
        h = t_next - self.t
        return self.x - sigma_at(t_next) * h.expm1() * self.first_noise()

    def order2(self, t_next: Tensor, r: float = 0.5) -> Tensor:
        h, noise = t_next - self.t, self.first_noise()
        x = self.order1(t_next)
        return x - sigma_at(t_next) / (2 * r) * h.expm1() * (self._middle_noise(h, r) - noise)

    def order3(self, t_next: Tensor) -> Tensor:
        r1, r2 = _THIRD, 2 * _THIRD
        h, noise = t_next - self.t, self.first_noise()
        change = self._middle_noise(h, r1) - noise
        s2 = self.t + r2 * h
        part = (r2 * h).expm1()
        u2 = self.x - sigma_at(s2) * part * noise
        u2 = u2 - sigma_at(s2) * (r2 / r1) * (part / (r2 * h) - 1) * change
        change = self._noise(u2, s2) - noise
        x = self.order1(t_next)
        return x - sigma_at(t_next) / r2 * (h.expm1() / h - 1) * change

    def _middle_noise(self, h: Tensor, r: float) -> Tensor:
        if r not in self.known:
            s = self.t + r * h
            u = self.x - sigma_at(s) * (r * h).expm1() * self.first_noise()
            self.known[r] = self._noise(u, s)
        return self.known[r]

    def _noise(self, x: Tensor, t: Tensor) -> Tensor:
        sigma = sigma_at(t)
        return (x - self.denoise(x, sigma)) / sigma


@dataclass(frozen=True, slots=True)
class SigmaRange:
    """From the largest sigma to the smallest, and how many model calls were asked for."""

    start: Tensor
    end: Tensor
    calls: int


def sample_dpm_fast(denoise: Denoiser, x: Tensor, sigmas: SigmaRange, run: Run) -> Tensor:
    """As many model calls as were asked for, by steps of third order and a rest."""
    start, end, calls = log_snr(sigmas.start), log_snr(sigmas.end), sigmas.calls
    rest = calls % 3
    count = calls // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if rest == 0 else [3] * (count - 1) + [rest]
    times = torch.linspace(float(start), float(end), count + 1)
    for i, order in enumerate(orders):
        t, t_next = times[i], times[i + 1]
        t_down, sigma_up = _ancestral_time(t, t_next, end, run.eta)
        solver = _Solver(denoise, x, t)
        steps = {1: solver.order1, 2: solver.order2, 3: solver.order3}
        x = steps[order](t_down)
        if run.eta:
            x = x + sigma_up * run.s_noise * run.noise()
        run.on_step(i)
    return x


def sample_dpm_adaptive(denoise: Denoiser, x: Tensor, sigmas: SigmaRange, run: Run) -> Tensor:
    """Steps of orders 2 and 3 side by side; their difference sets the step size."""
    t, end = log_snr(sigmas.start), log_snr(sigmas.end)
    control = _StepControl(_FIRST_STEP, order=1.5 if run.eta else 3)
    previous, done = x, 0
    while t < end - 1e-5:
        t_next = torch.minimum(end, t + control.step)
        t_down, sigma_up = _ancestral_time(t, t_next, end, run.eta)
        solver = _Solver(denoise, x, t)
        low, high = solver.order2(t_down, _THIRD), solver.order3(t_down)
        scale = torch.maximum(low.abs(), previous.abs()) * _RELATIVE_TOLERANCE
        distance = torch.linalg.norm((low - high) / scale.clamp(min=_ABSOLUTE_TOLERANCE))
        error = float(distance) / x.numel() ** 0.5
        if math.isnan(error):
            return low  # no smaller step would end it; whoever looks for NaNs finds these
        if control.accepts(error):
            previous, x, t = low, high, t_next
            if run.eta:
                x = x + sigma_up * run.s_noise * run.noise()
            run.on_step(done)
            done += 1
    return x


def _ancestral_time(t: Tensor, t_next: Tensor, end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Where to step to and how much noise to add there, never past the end."""
    if not eta:
        return t_next, torch.zeros(())
    sigma_down, _ = ancestral_step(sigma_at(t), sigma_at(t_next), eta)
    t_down = torch.minimum(end, log_snr(sigma_down))
    return t_down, (sigma_at(t_next) ** 2 - sigma_at(t_down) ** 2) ** 0.5


@dataclass(slots=True)
class _StepControl:
    """An integral controller of the step size: larger while errors are small."""

    step: float
    order: float

    def accepts(self, error: float) -> bool:
        """Whether a step of this error counts; sets the next step either way."""
        wanted = (1 / (error + 1e-8)) ** (1 / self.order)
        factor = 1 + math.atan(wanted - 1)
        self.step *= factor
        return factor >= _ACCEPT
