"""UniPC, Zhao et al. 2023: a predictor and a corrector of any order, one model call a step.

Contract: webui-scripts 16, including the row that `vary_coeff` takes for its last term.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sdapi.engine.jobs.job import UniPCOptions
from sdapi.engine.sampling.samplers.run import Run
from sdapi.engine.sampling.samplers.timestep import NoiseModel
from sdapi.errors import BadRequest

_Row = NDArray[np.float64]
_END = 0.001


@dataclass(frozen=True, slots=True)
class _Point:
    """A time with the clean latent predicted there."""

    t: float
    clean: Tensor


class _Schedule:
    """Continuous-time noise schedule through a model's time steps, `t = (i + 1) / 1000`."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        logs = 0.5 * np.log(alphas_cumprod.double().numpy())
        self._log_alphas: _Row = logs
        self._times: _Row = (np.arange(len(logs)) + 1) / len(logs)

    def log_alpha(self, t: float) -> float:
        """Piecewise linear; beyond the ends along the outer segment."""
        times, logs = self._times, self._log_alphas
        i = int(np.clip(np.searchsorted(times, t), 1, len(times) - 1))
        share = (t - times[i - 1]) / (times[i] - times[i - 1])
        return float(logs[i - 1] + share * (logs[i] - logs[i - 1]))

    def alpha(self, t: float) -> float:
        return math.exp(self.log_alpha(t))

    def sigma(self, t: float) -> float:
        return math.sqrt(1 - math.exp(2 * self.log_alpha(t)))

    def lam(self, t: float) -> float:
        """Half the log signal-to-noise ratio."""
        return self.log_alpha(t) - math.log(self.sigma(t))

    def time_of(self, lam: float) -> float:
        """The time of a half log signal-to-noise ratio, which falls with time."""
        log_alpha = -0.5 * math.log1p(math.exp(-2 * lam))
        times, logs = self._times[::-1], self._log_alphas[::-1]
        return float(np.interp(log_alpha, logs, times))


def sample_unipc(
    predict: NoiseModel,
    x: Tensor,
    start: float,
    steps: int,
    alphas_cumprod: Tensor,
    run: Run,
    options: UniPCOptions,
) -> Tensor:
    """Sample from time `start` (1 for pure noise) in `steps` model calls.

    Raises `BadRequest` when there are fewer steps than the order.
    """
    if steps < options.order:
        raise BadRequest("UniPC order must be < sampling steps")
    schedule = _Schedule(alphas_cumprod)
    times = _times(schedule, start, steps, options.skip_type)

    def evaluate(latent: Tensor, t: float) -> _Point:
        noise = predict(latent, (t - 1 / 1000) * 1000).guided
        return _Point(t, (latent - schedule.sigma(t) * noise) / schedule.alpha(t))

    history = [evaluate(x, times[0])]
    for k in range(1, steps + 1):
        order = min(k, options.order)
        if k >= options.order and options.lower_order_final:
            order = min(options.order, steps + 1 - k)
        step = _Step(schedule, history[-order:][::-1], times[k], options.variant)
        predicted = step.predict(x)
        if k < steps:
            point = evaluate(predicted, times[k])
            x = step.correct(x, point)
            history = [*history, point][-options.order :]
        else:
            x = predicted
        run.on_step(k - 1)
    return x


def _times(schedule: _Schedule, start: float, steps: int, skip_type: str) -> list[float]:
    if skip_type == "logSNR":
        lams = np.linspace(schedule.lam(start), schedule.lam(_END), steps + 1)
        return [schedule.time_of(float(lam)) for lam in lams]
    if skip_type == "time_quadratic":
        return [float(r) ** 2 for r in np.linspace(start**0.5, _END**0.5, steps + 1)]
    return [float(t) for t in np.linspace(start, _END, steps + 1)]


class _Step:
    """One step to time `t` from the latest point first in `points`."""

    def __init__(self, schedule: _Schedule, points: list[_Point], t: float, variant: str) -> None:
        self._here, *earlier = points
        self._order = len(points)
        self._uses_bh = variant != "vary_coeff"
        lam = schedule.lam(self._here.t)
        h = schedule.lam(t) - lam
        self._eta = -h
        ratios = [(schedule.lam(point.t) - lam) / h for point in earlier]
        self._ratios = np.array([*ratios, 1.0])
        self._changes = [
            (p.clean - self._here.clean) / r for p, r in zip(earlier, ratios, strict=True)
        ]
        self._scale = schedule.alpha(t)
        self._shrink = schedule.sigma(t) / schedule.sigma(self._here.t)
        self._b = self._eta if variant == "bh1" else math.expm1(self._eta)

    def predict(self, x: Tensor) -> Tensor:
        """The latent at `t` from the points before it."""
        if self._uses_bh:
            weights = [self._b * rho for rho in self._rho(self._order - 1)]
        else:
            psi, inverse = self._psi(), np.linalg.inv(self._c()[:-1, :-1])
            weights = [float(w) for w in psi[1:-1] @ inverse] if self._order > 1 else []
        return self._base(x) - self._scale * _sum(weights, self._changes)

    def correct(self, x: Tensor, point: _Point) -> Tensor:
        """The latent at `t` with the prediction made there taken in."""
        change = point.clean - self._here.clean
        if self._uses_bh:
            weights = [self._b * rho for rho in self._rho(self._order)]
        else:
            psi, inverse = self._psi(), np.linalg.inv(self._c())
            weights = [float(w) for w in psi[1:-1] @ inverse[:-1, :-1]]
            row = max(self._order - 2, 0)
            weights.append(float(psi[-1] * inverse[row, -1]))
        return self._base(x) - self._scale * _sum(weights, [*self._changes, change])

    def _base(self, x: Tensor) -> Tensor:
        return self._shrink * x - self._scale * math.expm1(self._eta) * self._here.clean

    def _rho(self, size: int) -> list[float]:
        """Weights of `size` changes; one alone counts half."""
        if size == 0:
            return []
        if size == 1:
            return [0.5]
        phi, right = math.expm1(self._eta) / self._eta - 1, list[float]()
        for j in range(1, size + 1):
            right.append(phi * math.factorial(j) / self._b)
            phi = phi / self._eta - 1 / math.factorial(j + 1)
        powers = np.stack([self._ratios[:size] ** (j - 1) for j in range(1, size + 1)])
        return [float(r) for r in np.linalg.solve(powers, np.array(right))]

    def _c(self) -> _Row:
        powers = range(1, self._order + 1)
        return np.stack([self._ratios ** (j - 1) / math.factorial(j) for j in powers], axis=1)

    def _psi(self) -> _Row:
        psi = [math.expm1(self._eta)]
        for j in range(1, self._order + 1):
            psi.append(psi[-1] / self._eta - 1 / math.factorial(j))
        return np.array(psi)


def _sum(weights: list[float], tensors: list[Tensor]) -> Tensor | float:
    return sum((w * t for w, t in zip(weights, tensors, strict=True)), start=0.0)
