"""One job on one device, batch by batch: networks, conditioning, sampling, decoding, finishing."""

import random
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL.Image import Image
from torch import Tensor

from sdapi.engine.adaptations.circular import circular_padding
from sdapi.engine.adaptations.sampling_run import adapted_unet, adapted_vae
from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.checkpoints.precision import wider_vae_type
from sdapi.engine.job import GeneratedImage, Job, ModelFile, Result
from sdapi.engine.latents import vae
from sdapi.engine.latents.image_cond import image_conditioning
from sdapi.engine.latents.init_latent import InitLatent, encode_init, seeded_generator
from sdapi.engine.models import LoadedCheckpoint, Models
from sdapi.engine.monitor import Monitor
from sdapi.engine.networks.selection import select
from sdapi.engine.sampling.blend import Blend
from sdapi.engine.sampling.denoise import UNetPredictor
from sdapi.engine.sampling.guidance import Economy, Guidance, Guide, Padding, Stopped
from sdapi.engine.sampling.noise import ImageNoise, NoiseSource, Seeds
from sdapi.engine.sampling.noise_schedule import job_alphas
from sdapi.engine.sampling.sampling_pass import (
    SamplingPass,
    Start,
    denoiser_calls,
    guidance_scale,
    planned_calls,
    run_sampler,
)
from sdapi.engine.sampling.soft_inpainting import SoftBlend, composite_masks
from sdapi.engine.text.composition import extract_tags
from sdapi.engine.text.conditioning import BatchCond, Conditioner, TextOptions
from sdapi.engine.text.notes import ti_hashes
from sdapi.engine.text.schedule import Timeline
from sdapi.errors import ModelUnusable


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


@dataclass(slots=True)
class JobRun:
    """A job while it runs. Made for one call of `run`."""

    models: Models
    job: Job
    monitor: Monitor
    checks_nan: bool = True
    #: infotext keys that come up, in order
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    #: what could not be used, each said once
    warnings: dict[str, None] = field(default_factory=dict[str, None])
    _init: InitLatent | None = None
    _image_cond: Tensor | None = None
    _is_encoded: bool = False
    #: Hypertile's choices
    _tile_choice: random.Random = field(init=False)
    _load_s: float = 0.0
    _decode_s: float = 0.0

    def __post_init__(self) -> None:
        self._tile_choice = random.Random(self.job.seeds[0])

    def run(self) -> Result:
        """Draw all batches; fewer pictures when the monitor says stop."""
        self.monitor.on_step = self._on_step
        try:
            return self._run()
        finally:
            self.monitor.on_step = None
            for stages in self.job.stages:
                stages.close()

    def _on_step(self, index: int) -> None:
        for stages in self.job.stages:
            stages.on_step(index, self.monitor.latent)

    def _run(self) -> Result:
        started = time.perf_counter()
        self.monitor.begin_job(self.job.n_iter)
        images: list[GeneratedImage] = []
        is_inpainting = False
        for number in range(self.job.n_iter):
            with self._model(self.job.checkpoint) as model:
                is_inpainting = model.components.is_inpainting
                images += self._draw(model, self._batch(number))
        total = time.perf_counter() - started
        return Result(
            images=tuple(images),
            extra=self.extra,
            warnings=tuple(self.warnings),
            is_inpainting_model=is_inpainting,
            interrupted=self.monitor.interrupted.is_set() or len(images) < len(self.job.prompts),
            load_s=self._load_s,
            sample_s=total - self._load_s - self._decode_s,
            decode_s=self._decode_s,
            extra_images=tuple(each for s in self.job.stages for each in s.extra_images),
        )

    @contextmanager
    def _model(self, file: ModelFile) -> Generator[Model]:
        """A checkpoint with the job's VAE in its place."""
        started = time.perf_counter()
        with self.models.checkpoint(file) as loaded, self._vae(loaded.components) as module:
            self._load_s += time.perf_counter() - started
            components = replace(loaded.components, vae=module)
            with circular_padding((components.unet, module), wanted=self.job.tiling):
                yield Model(components, loaded.conditioner, loaded)

    def _vae(self, components: Components) -> AbstractContextManager[AutoencoderKL]:
        if self.job.vae is None:
            return nullcontext(components.vae)
        return self.models.vae(self.job.vae, components)

    def _batch(self, number: int) -> Batch:
        first = number * self.job.batch_size
        rows = slice(first, first + self.job.batch_size)
        return Batch(number, rows, len(self.job.prompts[rows]))

    def _draw(self, model: Model, batch: Batch) -> list[GeneratedImage]:
        """One batch; empty when the job was interrupted before it predicted anything."""
        if self.monitor.interrupted.is_set():
            return []
        self.monitor.skipped.clear()
        self._activate(model, self.job.prompts[batch.rows.start])
        sampling = self._first_pass(model, batch)
        latent = self._sample(sampling)
        if latent is None:
            return []
        covers = _covers(sampling.blend, latent)
        images: Sequence[Image] = self._decode(model, latent)
        for stages in self.job.stages:
            images = stages.after_decode(images)
        self.monitor.end_pass()
        return [
            GeneratedImage(batch.rows.start + i, image, covers[i]) for i, image in enumerate(images)
        ]

    def _activate(self, model: Model, prompt: str) -> None:
        """Give a model the networks that a prompt's tags name; those it had before leave it.

        Belongs before a pass is encoded. The first prompt of a batch speaks for all of it; a pass
        with prompts of its own, or on another checkpoint, activates again.
        """
        files = self.job.networks
        self._warn(self.models.activate(model.loaded, select(prompt, files), files))
        if names := model.loaded.networks.lora_names:
            # Names for now: who answers knows the hashes of the files.
            shown = dict.fromkeys((*self.extra.get("Lora hashes", ()), *names))
            self.extra["Lora hashes"] = tuple(shown)

    def _warn(self, texts: Sequence[str]) -> None:
        """Tell what cannot be used; raises `ModelUnusable` where the job is strict about it."""
        told = dict.fromkeys(texts)
        if told and self.job.networks.is_strict:
            raise ModelUnusable("; ".join(told))
        self.warnings |= told

    def _sample(self, sampling: SamplingPass) -> Tensor | None:
        """The latent of a pass; of one that was stopped what it predicted last, if anything."""
        try:
            with adapted_unet(sampling.components, sampling.job, self._tile_choice):
                latent = run_sampler(sampling, self.extra)
        except Stopped as stop:
            latent = stop.latent
        if latent is None or sampling.blend is None:
            return latent
        return sampling.blend.after(latent)

    def _first_pass(self, model: Model, batch: Batch) -> SamplingPass:
        if not self._is_encoded:
            self._encode(model)
        sampling = self._pass(self.job, model, batch, self._start(), self._image_cond)
        return replace(sampling, blend=self._init.blend) if self._init else sampling

    def _pass(
        self,
        job: Job,
        model: Model,
        batch: Batch,
        start: Start | None,
        image_cond: Tensor | None,
    ) -> SamplingPass:
        """A sampler run over `job` as this pass sees it: its size, texts, sampler and steps."""
        cond = self._cond(job, model, batch)
        alphas = job_alphas(model.components.alphas_cumprod, job.options, self.extra)
        return SamplingPass(
            job=job,
            components=replace(model.components, alphas_cumprod=alphas),
            predict=UNetPredictor(
                model.components, image_cond, [s.before_denoise for s in self.job.stages]
            ),
            guide=Guide(cond, _guidance(job, start), self.monitor, self.extra),
            noise=self._noise(job, model, batch),
            monitor=self.monitor,
            start=start,
            checks_nan=self.checks_nan,
        )

    def _cond(self, job: Job, model: Model, batch: Batch) -> BatchCond:
        options = job.options
        text_options = TextOptions(
            clip_skip=options.clip_skip,
            emphasis=options.emphasis,
            comma_backtrack=options.comma_backtrack,
            sdxl_clip_l_skip=options.sdxl_clip_l_skip,
            size=(job.height, job.width),
            crop=options.sdxl_crop,
            attention=options.prompt_attention,
        )
        timeline = Timeline(
            denoiser_calls(job, job.steps), use_old_scheduling=options.use_old_scheduling
        )
        prompts = [extract_tags(prompt)[0] for prompt in job.prompts[batch.rows]]
        negatives = job.negative_prompts[batch.rows]
        cond = model.conditioner.batch(prompts, negatives, timeline, text_options)
        if options.pad_cond_uncond and options.prompt_attention == "webui":
            cond = replace(cond, empty=model.conditioner.empty(text_options))
        for note in cond.notes:
            self._warn(note.refused)
        if hashes := ti_hashes(cond.notes, tells_bundled=self.job.networks.tells_bundled):
            self.extra.setdefault("TI hashes", hashes)  # a second pass does not tell its own
        if _shows_emphasis(self.job):
            self.extra["Emphasis"] = options.emphasis
        return cond

    def _noise(self, job: Job, model: Model, batch: Batch) -> ImageNoise:
        options, resize = job.options, job.seed_resize_from
        seeds = Seeds(
            job.seeds[batch.rows],
            job.subseeds[batch.rows],
            job.subseed_strength,
            None if resize is None else (resize[1] // 8, resize[0] // 8),
            options.eta_noise_seed_delta,
        )
        shape = (model.components.latent_channels, *job.latent_size)
        return ImageNoise(NoiseSource(options.randn_source, self.models.device), shape, seeds)

    def _encode(self, model: Model) -> None:
        """Encode the job's pictures, once for all batches."""
        job, device = self.job, self.models.device
        generator = seeded_generator(job)
        if job.init is not None:
            source = NoiseSource(job.options.randn_source, device)
            self._init = encode_init(model.components, job, job.init, source, generator)
        self._image_cond = image_conditioning(model.components, job, device, generator)
        self._is_encoded = True

    def _start(self) -> Start | None:
        if self.job.init is None or self._init is None:
            return None
        return Start(
            self._init.latent,
            self.job.init.denoising_strength,
            self.job.init.noise_multiplier,
            self.job.options.img2img_extra_noise,
            self.job.options.img2img_fix_steps,
        )

    def _decode(self, model: Model, latent: Tensor) -> list[Image]:
        started = time.perf_counter()
        with adapted_vae(model.components.vae, self.job, self._tile_choice):
            images = vae.decode(
                model.components.vae,
                latent,
                model.components.scale_factor,
                widen_to=wider_vae_type(
                    prefers_bfloat16=self.job.options.auto_vae_precision_bfloat16,
                    allowed=self.job.options.auto_vae_precision,
                ),
                checks_nan=self.checks_nan,
            )
        self._decode_s += time.perf_counter() - started
        return images


def _covers(blend: Blend | None, latent: Tensor) -> Sequence[Image | None]:
    """What soft inpainting covers of each init picture; without it all is left to the mask."""
    if isinstance(blend, SoftBlend):
        return composite_masks(blend, latent)
    return [None] * len(latent)


def _shows_emphasis(job: Job) -> bool:
    if job.options.emphasis == "Original":
        return False
    return any(
        bracket in text for text in (*job.prompts, *job.negative_prompts) for bracket in "(["
    )


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
