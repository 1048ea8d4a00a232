"""The noise levels that a job's sampler follows: its scheduler, as the options have it.

Contract: webui-generation 6.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.jobs.job import Job
from sdapi.engine.sampling.sampler_names import AUTOMATIC, SchedulerInfo, effective_scheduler
from sdapi.engine.sampling.samplers import RANGE_SAMPLERS, WITH_DISTINCT_SIGMAS
from sdapi.engine.sampling.samplers.run import log_snr
from sdapi.engine.sampling.schedules import SCHEDULES, ModelSigmas, ScheduleRequest
from sdapi.errors import BadRequest

_OLD_KARRAS_RANGE = (0.1, 10.0)
_LIKE_THE_MODEL = 0.0


def schedule_sigmas(
    job: Job, model: ModelSigmas, family: Family, steps: int, extra: dict[str, Any]
) -> Tensor:
    """The sigmas of a job's scheduler for a number of steps, float32 on the CPU.

    Raises `BadRequest` for those that no sampler, or not the job's, can follow.
    """
    options, scheduler = job.options, effective_scheduler(job.sampler, job.scheduler)
    made_of: dict[str, float] = {}
    discard = "discard_next_to_last_sigma" in job.sampler.options
    if options.always_discard_next_to_last_sigma and not discard:
        extra["Discard penultimate sigma"] = True
        discard = True
    low, high = _OLD_KARRAS_RANGE if options.use_old_karras_range else (model.min, model.max)
    if scheduler.label != AUTOMATIC:
        extra["Schedule type"] = scheduler.label
        if options.sigma_min not in (_LIKE_THE_MODEL, low):
            extra["Schedule min sigma"] = made_of["sigma_min"] = low = options.sigma_min
        if options.sigma_max not in (_LIKE_THE_MODEL, high):
            extra["Schedule max sigma"] = made_of["sigma_max"] = high = options.sigma_max
    rho: float | None = None
    if scheduler.default_rho != -1 and options.rho not in (_LIKE_THE_MODEL, scheduler.default_rho):
        extra["Schedule rho"] = made_of["rho"] = rho = options.rho
    if scheduler.name == "beta":
        extra["Beta schedule alpha"] = made_of["beta_dist_alpha"] = options.beta_alpha
        extra["Beta schedule beta"] = made_of["beta_dist_beta"] = options.beta_beta
    request = ScheduleRequest(
        steps=steps + 1 if discard else steps,
        model=model,
        sigma_min=low,
        sigma_max=high,
        rho=rho,
        is_sdxl=family is Family.SDXL,
        beta_alpha=options.beta_alpha,
        beta_beta=options.beta_beta,
    )
    sigmas = _usable_schedule(scheduler, request, made_of)
    if discard:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    _check_steps(job.sampler.name, scheduler, sigmas, made_of or {"steps": steps})
    return sigmas


def _usable_schedule(
    scheduler: SchedulerInfo, request: ScheduleRequest, made_of: Mapping[str, float]
) -> Tensor:
    """The sigmas of a schedule; raises `BadRequest` that names the options, `made_of`, of one
    that no sampler can follow."""
    try:
        sigmas = SCHEDULES[scheduler.name](request)
    except ArithmeticError:  # beyond what a float holds
        sigmas = None
    if sigmas is not None:
        falls = bool((sigmas[1:] <= sigmas[:-1]).all() and (sigmas[:-1] > 0).all())
        if falls and bool(sigmas.isfinite().all()):
            return sigmas
    told = ", ".join(f"{name}: {value:g}" for name, value in made_of.items())
    raise BadRequest(
        f"{told or 'steps'} gives scheduler {scheduler.label!r} no usable noise levels; they must "
        "be finite, above 0, and fall from step to step"
    )


def _check_steps(
    sampler: str, scheduler: SchedulerInfo, sigmas: Tensor, made_of: Mapping[str, float]
) -> None:
    """Refuse noise levels between which a sampler would divide by zero."""
    if sampler not in WITH_DISTINCT_SIGMAS:
        return
    levels = sigmas[sigmas > 0]
    if sampler in RANGE_SAMPLERS:
        levels = levels[:: max(len(levels) - 1, 1)]  # its ends, between which it goes its own way
    times = log_snr(levels)
    # As the samplers see a step: in log sigma, and some of them at half of it.
    middles = times[:-1].lerp(times[1:], 0.5)
    if bool((middles > times[:-1]).all() and (times[1:] > times[:-1]).all()):
        return
    told = ", ".join(f"{name}: {value:g}" for name, value in made_of.items())
    raise BadRequest(
        f"{told} gives scheduler {scheduler.label!r} one noise level several times, which sampler "
        f"{sampler!r} cannot follow; take fewer steps, another scheduler, or a sampler such as "
        "'Euler'"
    )
