"""A sampler run to come, and everything it works with once its models are there."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.jobs.init_images import Inversion
from sdapi.engine.jobs.job import Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.models.device_models import LoadedCheckpoint, Models
from sdapi.engine.sampling.denoising.blend import Blend
from sdapi.engine.sampling.denoising.edit_guidance import make_guide
from sdapi.engine.sampling.denoising.guidance import Economy, Guidance, Padding
from sdapi.engine.sampling.denoising.unet_predictor import UNetPredictor
from sdapi.engine.sampling.handover import Handover
from sdapi.engine.sampling.noise import ImageNoise, NoiseSource, Seeds
from sdapi.engine.sampling.noise_schedule import job_alphas
from sdapi.engine.sampling.sampling_pass import (
    SamplingPass,
    Start,
    guidance_scale,
    planned_calls,
)
from sdapi.engine.text.cond import BatchCond
from sdapi.engine.text.conditioning import Conditioner
from sdapi.engine.text.grammar.composition import extract_tags
from sdapi.engine.text.grammar.schedule import Timeline
from sdapi.engine.text.text_options import TextOptions


@dataclass(frozen=True, slots=True)
class Model:
    """What a pass draws with: a checkpoint's parts, the job's VAE among them."""

    components: Components
    conditioner: Conditioner
    #: the checkpoint they are of, as the cache lends it
    loaded: LoadedCheckpoint


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of a job: its number and its rows among the job's prompts and seeds."""

    number: int
    rows: slice
    count: int

    @property
    def numbers(self) -> range:
        """The places of its pictures among the job's."""
        return range(self.rows.start, self.rows.start + self.count)


@dataclass(frozen=True, slots=True)
class PassPlan:
    """A sampler run to come: the job as it sees it, the batch, and where it starts."""

    job: Job
    batch: Batch
    start: Start | None
    #: further input channels of the UNet [B, K, h, w]
    image_cond: Tensor | None
    timeline: Timeline
    blend: Blend | None = None
    #: the second of hires fix
    is_second: bool = False
    #: infotext keys that come up, in order
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    def sampling_pass(
        self,
        model: Model,
        cond: BatchCond,
        monitor: Monitor,
        models: Models,
        handover: Handover | None,
        *,
        checks_nan: bool,
    ) -> SamplingPass:
        """The run with a model; `handover` may exchange it on the way."""
        init, edits = self.job.init, model.components.is_instruct_pix2pix
        guide = make_guide(
            cond,
            _guidance(self.job, self.start),
            monitor,
            self.extra,
            image_cfg_scale=init.image_cfg_scale if edits and init else None,
        )
        return SamplingPass(
            job=self.job,
            components=self._components(model),
            predict=self.predictor(model),
            guide=guide,
            noise=self._noise(model, models.device),
            monitor=monitor,
            models=models,
            start=self.start,
            blend=self.blend,
            handover=handover,
            checks_nan=checks_nan,
            is_second=self.is_second,
        )

    def predictor(self, model: Model) -> UNetPredictor:
        """The model's UNet, and what scripts do around each of its calls."""
        return UNetPredictor(self._components(model), self.image_cond, self.job.stages)

    def _components(self, model: Model) -> Components:
        return replace(model.components, alphas_cumprod=self.alphas(model))

    def alphas(self, model: Model) -> Tensor:
        """The model's cumulative alphas as the job's options want them."""
        return job_alphas(model.components.alphas_cumprod, self.job.options, self.extra)

    def inversion_cond(self, model: Model, inversion: Inversion) -> BatchCond:
        """The texts under which the noise behind the batch's pictures is found."""
        prompt, negative = (
            extract_tags(text)[0] for text in (inversion.prompt, inversion.negative_prompt)
        )
        options = self._text_options
        return model.conditioner.unscheduled(prompt, negative, self.batch.count, options)

    @property
    def _text_options(self) -> TextOptions:
        job, options = self.job, self.job.options
        return TextOptions(
            clip_skip=options.clip_skip,
            emphasis=options.emphasis,
            comma_backtrack=options.comma_backtrack,
            sdxl_clip_l_skip=options.sdxl_clip_l_skip,
            size=(job.height, job.width),
            crop=options.sdxl_crop,
            attention=options.prompt_attention,
        )

    def cond(self, model: Model) -> BatchCond:
        """The batch's prompts, encoded by a model."""
        job, options, text_options = self.job, self.job.options, self._text_options
        prompts = [extract_tags(prompt)[0] for prompt in job.prompts[self.batch.rows]]
        negatives = job.negative_prompts[self.batch.rows]
        cond = model.conditioner.batch(prompts, negatives, self.timeline, text_options)
        if options.pad_cond_uncond and options.prompt_attention == "webui":
            cond = replace(cond, empty=model.conditioner.empty(text_options))
        return cond

    def _noise(self, model: Model, device: torch.device) -> ImageNoise:
        job, options, resize = self.job, self.job.options, self.job.seed_resize_from
        seeds = Seeds(
            job.seeds[self.batch.rows],
            job.subseeds[self.batch.rows],
            job.subseed_strength,
            None if resize is None else (resize[1] // 8, resize[0] // 8),
            options.eta_noise_seed_delta,
        )
        height, width = job.latent_size if self.start is None else self.start.latent.shape[-2:]
        shape = (model.components.latent_channels, height, width)
        return ImageNoise(NoiseSource(options.randn_source, device), shape, seeds)


def _guidance(job: Job, start: Start | None) -> Guidance:
    options = job.options
    padding: Padding = "empty" if options.pad_cond_uncond else "none"
    return Guidance(
        guidance_scale(job),
        options.batch_cond_uncond,
        "repeat" if options.pad_cond_uncond_v0 else padding,
        Economy(
            job.s_min_uncond,
            options.s_min_uncond_all,
            options.skip_early_cond,
            planned_calls(job, start),
        ),
    )
