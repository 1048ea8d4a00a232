"""What a job tells its sampler besides the schedule: eta, churn, noise between two sigmas.

An option of the server that is not at its default wins over the request, and only then shows in
the infotext (contract: webui-generation 5.3).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdapi.engine.jobs.job import Churn, Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.sampling.noise import BrownianNoise, ImageNoise
from sdapi.engine.sampling.samplers import (
    EXPONENTIAL_SDE,
    WITH_CHURN,
    WITH_S_NOISE,
    WITHOUT_ETA,
    Run,
)
from sdapi.errors import BadRequest

_DEFAULT_CHURN = Churn()


@dataclass(frozen=True, slots=True)
class RunSources:
    """Where a sampler's draws come from, and who hears of its steps."""

    noise: ImageNoise
    monitor: Monitor

    def on_step(self, index: int) -> None:
        self.monitor.step_done(index)


def sigma_settings(
    job: Job, sources: RunSources, sigmas: Tensor, used: Tensor, extra: dict[str, Any]
) -> Run:
    """Settings of a sigma-space sampler over `used`, a part of the schedule `sigmas`."""
    eta = job.options.eta_ancestral if job.eta is None else job.eta
    if job.sampler.name not in WITHOUT_ETA and eta != 1.0:
        extra["Eta"] = eta
    _check_eta(job, eta)
    churn = _churn(job, extra)
    return Run(
        noise=sources.noise.next,
        noise_between=_noise_between(job, sources.noise, sigmas, used),
        on_step=sources.on_step,
        eta=eta,
        s_noise=churn.noise,
        s_churn=churn.churn,
        s_tmin=churn.tmin,
        s_tmax=churn.tmax,
    )


def _check_eta(job: Job, eta: float) -> None:
    """Refuse an eta whose noise would have a negative variance."""
    lowest = 0.0 if job.sampler.name in EXPONENTIAL_SDE else -1.0
    if job.sampler.name not in WITHOUT_ETA and eta < lowest:
        name = "eta_ancestral" if job.eta is None else "eta"
        raise BadRequest(
            f"{name}: {eta:g} is too low for sampler {job.sampler.name!r}; at least {lowest:g}"
        )


def timestep_settings(job: Job, sources: RunSources, extra: dict[str, Any]) -> Run:
    """Settings of a sampler over training time steps."""
    eta = job.options.eta_ddim if job.eta is None else job.eta
    if job.sampler.name in ("DDIM", "DDIM CFG++") and eta != 0:
        extra["Eta DDIM"] = eta
    next_noise, name = sources.noise.next, "eta_ddim" if job.eta is None else "eta"
    return Run(next_noise, lambda *_: next_noise(), sources.on_step, eta=eta, eta_name=name)


def _churn(job: Job, extra: dict[str, Any]) -> Churn:
    """The churn settings that the sampler reads; the others keep their default."""
    option, default = job.options.churn, _DEFAULT_CHURN
    values: dict[str, float] = {}
    for name in ("churn", "tmin", "tmax", "noise"):
        readers = WITH_S_NOISE if name == "noise" else WITH_CHURN
        if job.sampler.name not in readers:
            continue
        values[name] = getattr(job.churn, name)
        if getattr(option, name) != getattr(default, name):
            extra[f"Sigma {name}"] = values[name] = getattr(option, name)
    return Churn(**values)


def _noise_between(
    job: Job, noise: ImageNoise, sigmas: Tensor, used: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    if "brownian_noise" not in job.sampler.options:
        return lambda *_: noise.next()
    if job.options.no_batch_determinism:
        return _unrepeated_noise(noise, used)
    return BrownianNoise(noise.source, noise.shape, noise.seeds.seeds, *_bounds(sigmas))


def _unrepeated_noise(noise: ImageNoise, used: Tensor) -> BrownianNoise:
    """k-diffusion's own: one tree for the whole batch, from the process' random numbers.

    Those the reference has seeded with the last image's seed just before.
    """
    generator = torch.Generator().manual_seed(noise.seeds.seeds[-1] & 0xFFFFFFFFFFFFFFFF)
    entropy = int(torch.randint(0, (1 << 63) - 1, (), generator=generator))
    shape = (len(noise.seeds.seeds), *noise.shape)
    return BrownianNoise(noise.source, shape, (entropy,), *_bounds(used))


def _bounds(sigmas: Tensor) -> tuple[float, float]:
    return float(sigmas[sigmas > 0].min()), float(sigmas.max())
