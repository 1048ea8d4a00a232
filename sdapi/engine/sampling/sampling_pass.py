"""One sampler run: the schedule a job asks for, where it starts, and the latent it ends with.

Contract: webui-generation 5, 6, 8 and 10.6.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.jobs.job import Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.models.device_models import Models
from sdapi.engine.sampling.denoising.blend import Blend
from sdapi.engine.sampling.denoising.denoise import (
    LCMDenoiser,
    NoiseDenoiser,
    SigmaDenoiser,
    check_latent,
)
from sdapi.engine.sampling.denoising.guidance import Guide
from sdapi.engine.sampling.denoising.unet_predictor import UNetPredictor
from sdapi.engine.sampling.handover import Handover
from sdapi.engine.sampling.job_schedule import schedule_sigmas
from sdapi.engine.sampling.noise import ImageNoise
from sdapi.engine.sampling.run_settings import RunSources, sigma_settings, timestep_settings
from sdapi.engine.sampling.samplers import (
    CFG_DIVISORS,
    RANGE_SAMPLERS,
    SIGMA_SAMPLERS,
    TIMESTEP_SAMPLERS,
    UNIPC,
    SigmaRange,
    ddim_timesteps,
    sample_unipc,
)
from sdapi.engine.sampling.schedules import LCMSigmas, ModelSigmas
from sdapi.errors import BadRequest

#: Strength 1 still leaves a trace of the init picture.
_MAX_STRENGTH = 0.999
#: steps that a schedule may have, of which a low strength runs the last few
_MAX_SCHEDULE = 1_000_000


@dataclass(frozen=True, slots=True)
class Start:
    """Where an img2img run begins: the init latent, and how far it is noised."""

    latent: Tensor
    denoising_strength: float
    noise_multiplier: float = 1.0
    extra_noise: float = 0.0
    fix_steps: bool = False


@dataclass(frozen=True, slots=True)
class SamplingPass:
    """Everything one sampler run works with."""

    job: Job
    components: Components
    predict: UNetPredictor
    guide: Guide
    noise: ImageNoise
    monitor: Monitor
    #: further models, for scripts
    models: Models
    start: Start | None = None
    blend: Blend | None = None
    handover: Handover | None = None
    checks_nan: bool = True
    #: the second of hires fix
    is_second: bool = False

    @property
    def planned_steps(self) -> int:
        """The steps that shares of a run are counted in: of img2img those of its tail."""
        if self.start is None:
            return self.job.steps
        return max(img2img_steps(self.job.steps, self.start)[1] + 1, 1)


def denoiser_calls(job: Job, steps: int) -> int:
    """The denoiser calls a prompt schedule counts: twice the steps for second-order samplers."""
    return steps * 2 if job.sampler.is_second_order else steps


def planned_calls(job: Job, start: Start | None) -> int:
    """The denoiser calls that shares of a run are counted in: of img2img those of its tail."""
    if start is None:
        return denoiser_calls(job, job.steps)
    return denoiser_calls(job, max(img2img_steps(job.steps, start)[1] + 1, 1))


def guidance_scale(job: Job) -> float:
    """The CFG scale that a job's sampler works with."""
    return job.cfg_scale / CFG_DIVISORS.get(job.sampler.name, 1.0)


def run_sampler(run: SamplingPass, extra: dict[str, Any]) -> Tensor:
    """Sample one batch; infotext keys that come up are added to `extra`.

    Returns the latent [B, C, h, w]. Raises `Stopped` or `NanProduced`.
    """
    name = run.job.sampler.name
    try:
        if name in TIMESTEP_SAMPLERS or name == UNIPC:
            latent = _run_timestep_sampler(run, extra)
        else:
            latent = _run_sigma_sampler(run, extra)
    finally:
        run.guide.finish()
    if run.checks_nan:
        check_latent(latent)
    return latent


def _run_sigma_sampler(run: SamplingPass, extra: dict[str, Any]) -> Tensor:
    job, name = run.job, run.job.sampler.name
    model, sources = _model_sigmas(run), RunSources(run.noise, run.monitor)
    noise = _scaled_noise(run, extra)
    if run.start is None:
        sigmas = used = schedule_sigmas(job, model, run.components.family, job.steps, extra)
        bounds = SigmaRange(torch.tensor(model.max), torch.tensor(model.min), job.steps)
        x = noise * _first_scale(job, sigmas, extra)
    else:
        steps, t_enc = img2img_steps(job.steps, run.start)
        sigmas = schedule_sigmas(job, model, run.components.family, steps, extra)
        used = sigmas[steps - t_enc - 1 :]
        if len(used) == 0:
            strength = run.start.denoising_strength
            raise BadRequest(f"denoising_strength: {strength} is too low for {job.steps} steps")
        bounds = SigmaRange(used[0], used[-2 if len(used) > 1 else -1], len(used) - 1)
        x = run.start.latent + noise * float(used[0])
        x = _with_extra_noise(x, noise, run.start, 1.0, extra)
    settings = sigma_settings(job, sources, sigmas, used, extra)
    kind = LCMDenoiser if isinstance(model, LCMSigmas) else SigmaDenoiser
    denoise = kind(
        run.predict,
        run.guide,
        model,
        v_prediction=run.components.v_prediction,
        blend=run.blend,
        handover=run.handover,
    )
    run.monitor.begin_sampling(len(used) - 1)
    if name in RANGE_SAMPLERS:
        return RANGE_SAMPLERS[name](denoise, x, bounds, settings)
    return SIGMA_SAMPLERS[name](denoise, x, used, settings)


def _model_sigmas(run: SamplingPass) -> ModelSigmas:
    if run.job.sampler.name == "LCM":
        return LCMSigmas(run.components.alphas_cumprod)
    return ModelSigmas(run.components.alphas_cumprod, quantize=run.job.options.enable_quantization)


def _first_scale(job: Job, sigmas: Tensor, extra: dict[str, Any]) -> float:
    """What txt2img's first noise is multiplied by."""
    if not job.options.sgm_noise_multiplier:
        return float(sigmas[0])
    extra["SGM noise multiplier"] = True
    return float((1.0 + sigmas[0] ** 2) ** 0.5)


def _run_timestep_sampler(run: SamplingPass, extra: dict[str, Any]) -> Tensor:
    job, alphas = run.job, run.components.alphas_cumprod.cpu()
    noise = _scaled_noise(run, extra)
    if run.start is None:
        timesteps, x, start = ddim_timesteps(job.steps), noise, 1.0
    else:
        timesteps, t_enc = _img2img_timesteps(job.steps, run.start)
        alpha = float(alphas[timesteps[t_enc]])
        x = run.start.latent * alpha**0.5 + noise * (1 - alpha) ** 0.5
        x = _with_extra_noise(x, noise, run.start, alpha**0.5, extra)
        timesteps = timesteps[:t_enc]
        start = timesteps[-1] / len(alphas) + 1 / len(alphas) if timesteps else 0.0
    settings = timestep_settings(job, RunSources(run.noise, run.monitor), extra)
    denoise = NoiseDenoiser(
        run.predict,
        run.guide,
        alphas,
        v_prediction=run.components.v_prediction,
        blend=run.blend,
        handover=run.handover,
    )
    if job.sampler.name == UNIPC:
        run.monitor.begin_sampling(len(timesteps))
        unipc = job.options.unipc
        return sample_unipc(denoise, x, start, len(timesteps), alphas, settings, unipc)
    run.monitor.begin_sampling(max(len(timesteps) - 1, 1))
    return TIMESTEP_SAMPLERS[job.sampler.name](denoise, x, timesteps, alphas, settings)


def _img2img_timesteps(steps: int, start: Start) -> tuple[list[int], int]:
    """The full list of time steps, and the index its tail starts from."""
    total, t_enc = img2img_steps(steps, start)
    timesteps = ddim_timesteps(total) if total > 0 else []
    if t_enc >= len(timesteps):
        raise BadRequest(
            f"denoising_strength: {start.denoising_strength} with {steps} steps does not fit the "
            "time steps of this sampler"
        )
    return timesteps, t_enc


def img2img_steps(steps: int, start: Start) -> tuple[int, int]:
    """The length of the full schedule, and the index its tail starts from (contract: 10.6)."""
    strength = min(start.denoising_strength, _MAX_STRENGTH)
    if start.fix_steps:
        total = steps / strength if strength > 0 else 0
        if total > _MAX_SCHEDULE:
            raise BadRequest(
                f"denoising_strength: {strength} makes a schedule of {total:.0f} steps; "
                f"at most {_MAX_SCHEDULE}"
            )
        return int(total), steps - 1
    return steps, int(strength * steps)


def _with_extra_noise(
    x: Tensor, noise: Tensor, start: Start, scale: float, extra: dict[str, Any]
) -> Tensor:
    if start.extra_noise <= 0:
        return x
    extra["Extra noise"] = start.extra_noise
    return x + noise * start.extra_noise * scale


def _scaled_noise(run: SamplingPass, extra: dict[str, Any]) -> Tensor:
    noise = run.noise.first()
    if run.start is None or run.start.noise_multiplier == 1.0:
        return noise
    extra["Noise multiplier"] = run.start.noise_multiplier
    return noise * run.start.noise_multiplier
