"""Sigma schedules: how the noise level falls over the steps (contract: webui-generation 6).

Each function returns float32 sigmas on the CPU, from high to low; all but `kl_optimal` end with 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

_ALIGN_YOUR_STEPS_SD = (
    14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029,
)  # fmt: skip
_ALIGN_YOUR_STEPS_SDXL = (
    14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029,
)  # fmt: skip


class ModelSigmas:
    """The noise levels a model was trained at, and how time steps and sigmas map to each other."""

    def __init__(self, alphas_cumprod: Tensor, *, quantize: bool = False) -> None:
        alphas = alphas_cumprod.detach().cpu()
        #: rising, [1000], in the alphas' own type: with downcast ones they are half
        self.sigmas = ((1 - alphas) / alphas) ** 0.5
        self.log_sigmas = self.sigmas.log()
        self.quantize = quantize

    def of(self, alphas_cumprod: Tensor) -> "ModelSigmas":
        """The same for another model."""
        return ModelSigmas(alphas_cumprod, quantize=self.quantize)

    @property
    def time_range(self) -> tuple[float, float]:
        """The time steps of the largest and the smallest sigma."""
        return float(len(self.sigmas) - 1), 0.0

    @property
    def min(self) -> float:
        return float(self.sigmas[0])

    @property
    def max(self) -> float:
        return float(self.sigmas[-1])

    def sigma(self, t: Tensor) -> Tensor:
        """The sigma at (fractional) time steps, linear in log sigma."""
        t = t.float()
        low = t.floor().long()
        weight = t.frac()
        logs = (1 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[t.ceil().long()]
        return logs.exp()

    def t(self, sigma: Tensor) -> Tensor:
        """The (fractional) time step of sigmas, linear in log sigma; the nearest if quantised."""
        log_sigma = sigma.float().cpu().log()
        distances = log_sigma - self.log_sigmas[:, None]
        if self.quantize:
            return distances.abs().argmin(dim=0).view(sigma.shape)
        low = distances.ge(0).cumsum(dim=0).argmax(dim=0).clamp(max=len(self.sigmas) - 2)
        below, above = self.log_sigmas[low], self.log_sigmas[low + 1]
        weight = ((below - log_sigma) / (below - above)).clamp(0, 1)
        return ((1 - weight) * low + weight * (low + 1)).view(sigma.shape)


class LCMSigmas(ModelSigmas):
    """The 50 noise levels that latent consistency models were distilled at (contract: 5.7)."""

    _STRIDE = 20

    def __init__(self, alphas_cumprod: Tensor) -> None:
        super().__init__(alphas_cumprod[self._STRIDE - 1 :: self._STRIDE])

    def of(self, alphas_cumprod: Tensor) -> "LCMSigmas":
        return LCMSigmas(alphas_cumprod)

    @property
    def time_range(self) -> tuple[float, float]:
        return float(len(self.sigmas) * self._STRIDE - 1), float(self._STRIDE - 1)

    def sigma(self, t: Tensor) -> Tensor:
        index = (t - (self._STRIDE - 1)) / self._STRIDE
        return super().sigma(index.clamp(0, len(self.sigmas) - 1))

    def t(self, sigma: Tensor) -> Tensor:
        distances = sigma.float().cpu().log() - self.log_sigmas[:, None]
        nearest = distances.abs().argmin(dim=0).view(sigma.shape)
        return nearest * self._STRIDE + (self._STRIDE - 1)


@dataclass(frozen=True, slots=True)
class ScheduleRequest:
    """What a schedule is made from; `rho` None takes the schedule's own."""

    steps: int
    model: ModelSigmas
    sigma_min: float
    sigma_max: float
    rho: float | None = None
    is_sdxl: bool = False
    beta_alpha: float = 0.6
    beta_beta: float = 0.6


Schedule = Callable[[ScheduleRequest], Tensor]


def _with_zero(sigmas: Tensor | list[float]) -> Tensor:
    return torch.cat([torch.as_tensor(sigmas, dtype=torch.float32), torch.zeros(1)])


def automatic(request: ScheduleRequest) -> Tensor:
    """Time steps evenly from the last to the first (k-diffusion's `get_sigmas`)."""
    times = torch.linspace(*request.model.time_range, request.steps)
    return _with_zero(request.model.sigma(times))


def karras(request: ScheduleRequest) -> Tensor:
    """Karras et al. 2022, equation 5."""
    rho = 7.0 if request.rho is None else request.rho
    return karras_sigmas(request.steps, request.sigma_min, request.sigma_max, rho)


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Even in the `rho`-th root of sigma, then zero."""
    ramp = torch.linspace(0, 1, steps)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return _with_zero((high + ramp * (low - high)) ** rho)


def exponential(request: ScheduleRequest) -> Tensor:
    """Even in log sigma."""
    low, high = math.log(request.sigma_min), math.log(request.sigma_max)
    return _with_zero(torch.linspace(high, low, request.steps).exp())


def polyexponential(request: ScheduleRequest) -> Tensor:
    """A power of an even ramp in log sigma."""
    rho = 1.0 if request.rho is None else request.rho
    ramp = torch.linspace(1, 0, request.steps) ** rho
    low, high = math.log(request.sigma_min), math.log(request.sigma_max)
    return _with_zero(torch.exp(ramp * (high - low) + low))


def sgm_uniform(request: ScheduleRequest) -> Tensor:
    """Even in time, the last point left out (Stability's generative-models)."""
    start, end = _time_range(request)
    return _with_zero(request.model.sigma(torch.linspace(start, end, request.steps + 1)[:-1]))


def normal(request: ScheduleRequest) -> Tensor:
    """Even in time between the ends' time steps."""
    start, end = _time_range(request)
    return _with_zero(request.model.sigma(torch.linspace(start, end, request.steps)))


def _time_range(request: ScheduleRequest) -> tuple[float, float]:
    ends = torch.tensor([request.sigma_max, request.sigma_min])
    start, end = request.model.t(ends).tolist()
    return start, end


def kl_optimal(request: ScheduleRequest) -> Tensor:
    """Sabour et al. 2024, theorem 3.1; ends at the smallest sigma, with no zero after it."""
    ramp = torch.arange(request.steps + 1, dtype=torch.float32) / request.steps
    low, high = math.atan(request.sigma_min), math.atan(request.sigma_max)
    return torch.tan(ramp * low + (1 - ramp) * high)


def align_your_steps(request: ScheduleRequest) -> Tensor:
    """Sabour et al. 2024: the published tables, resampled evenly in log sigma."""
    table = _ALIGN_YOUR_STEPS_SDXL if request.is_sdxl else _ALIGN_YOUR_STEPS_SD
    if request.steps == len(table):
        return _with_zero(list(table))
    rising = np.log(np.array(table[::-1]))
    wanted = np.linspace(0, 1, request.steps)
    sigmas = np.exp(np.interp(wanted, np.linspace(0, 1, len(table)), rising))[::-1].copy()
    return _with_zero(torch.from_numpy(sigmas))


def simple(request: ScheduleRequest) -> Tensor:
    """Every n-th model sigma, counted from the largest."""
    sigmas = request.model.sigmas
    stride = len(sigmas) / request.steps
    return _with_zero([float(sigmas[-(1 + int(i * stride))]) for i in range(request.steps)])


def ddim(request: ScheduleRequest) -> Tensor:
    """The sigmas at DDIM's time steps; may be more than the steps asked for."""
    sigmas = request.model.sigmas
    stride = max(len(sigmas) // request.steps, 1)
    return _with_zero([float(sigmas[i]) for i in range(1, len(sigmas), stride)][::-1])


def beta(request: ScheduleRequest) -> Tensor:
    """Quantiles of a beta distribution, linear in sigma (Lee et al. 2024)."""
    quantiles = 1 - np.linspace(0, 1, request.steps)
    points = scipy.stats.beta.ppf(quantiles, request.beta_alpha, request.beta_beta)
    span = request.sigma_max - request.sigma_min
    return _with_zero(torch.from_numpy(request.sigma_min + points * span))


SCHEDULES: dict[str, Schedule] = {
    "automatic": automatic,
    "uniform": automatic,
    "karras": karras,
    "exponential": exponential,
    "polyexponential": polyexponential,
    "sgm_uniform": sgm_uniform,
    "kl_optimal": kl_optimal,
    "align_your_steps": align_your_steps,
    "simple": simple,
    "normal": normal,
    "ddim": ddim,
    "beta": beta,
}
