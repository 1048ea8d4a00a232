"""The noise that would have made a picture: img2img alternative test (contract: webui-scripts 9).

Euler steps backwards, from the picture to noise, under the texts that are said to describe it.
"""

from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from sdapi.engine.jobs.init_images import Inversion
from sdapi.engine.sampling.denoising.denoise import SigmaDenoiser
from sdapi.engine.sampling.denoising.guidance import Guidance, Guide
from sdapi.engine.sampling.noise import ImageNoise
from sdapi.engine.sampling.sampling_pass import SamplingPass, Start
from sdapi.engine.sampling.schedules import ModelSigmas, ScheduleRequest, automatic
from sdapi.engine.text.cond import BatchCond


def find_noise(inversion: Inversion, run: SamplingPass, start: Start, cond: BatchCond) -> Tensor:
    """The noise [B, C, h, w] behind the init latent of a run, of about unit variance.

    `cond` are the encoded texts of the inversion. Raises `Stopped`.
    """
    model = ModelSigmas(run.components.alphas_cumprod)
    guide = Guide(cond, Guidance(inversion.cfg_scale), run.monitor, {})
    denoise = SigmaDenoiser(run.predict, guide, model, v_prediction=run.components.v_prediction)
    sigmas = _uniform(model, inversion.steps).flip(0)
    run.monitor.begin_sampling(inversion.steps)
    x = start.latent
    for i, (low, high) in enumerate(pairwise(sigmas)):
        # Adjusted, a step takes the level it leaves; the first leaves 0 and moves nothing.
        level = low if inversion.adjusts_sigma else high
        if level > 0:
            x = x + (x - denoise(x, level)) / level * (high - low)
        run.monitor.step_done(i)
    return x / sigmas[-1] if inversion.adjusts_sigma else x / x.std()


def from_found_noise(
    inversion: Inversion, run: SamplingPass, start: Start, found: Tensor
) -> SamplingPass:
    """The run as it starts from noise that `find_noise` gave: no noise multiplier acts on it."""
    share = inversion.randomness
    drawn = ImageNoise(run.noise.source, run.noise.shape, run.noise.seeds).first()
    mixed = ((1 - share) * found + share * drawn) / (share**2 + (1 - share) ** 2) ** 0.5
    model = ModelSigmas(run.components.alphas_cumprod)
    first = mixed - start.latent / float(_uniform(model, run.job.steps)[0])
    return replace(
        run, noise=_GivenNoise(run.noise, first), start=replace(start, noise_multiplier=1)
    )


class _GivenNoise(ImageNoise):
    """Draws that begin with a given one; the sampler's own begin with what that replaces."""

    def __init__(self, noise: ImageNoise, first: Tensor) -> None:
        super().__init__(noise.source, noise.shape, noise.seeds)
        self._given = first
        self._has_drawn = False

    def first(self) -> Tensor:
        return self._given

    def next(self) -> Tensor:
        if self._has_drawn:
            return super().next()
        self._has_drawn = True
        return super().first()


def _uniform(model: ModelSigmas, steps: int) -> Tensor:
    """The uniform schedule, from high to 0."""
    return automatic(ScheduleRequest(steps, model, model.min, model.max))
