"""Runs jobs on one device: cache, conditioning, sampling, decoding.

Knows nothing of HTTP, users or queues.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from PIL.Image import Image

from sdapi.engine.checkpoints.checkpoint import Components, load_checkpoint, load_vae
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.checkpoints.weights import read_state_dict
from sdapi.engine.job import GeneratedImage, Job, ModelFile, Result
from sdapi.engine.latents import vae
from sdapi.engine.latents.image_cond import image_conditioning
from sdapi.engine.model_cache import ModelCache
from sdapi.engine.monitor import Monitor
from sdapi.engine.sampling.denoise import Guidance, Guide, Stopped, UNetPredictor
from sdapi.engine.sampling.noise import ImageNoise, NoiseSource, Seeds
from sdapi.engine.sampling.sampling_pass import (
    SamplingPass,
    Start,
    denoiser_calls,
    guidance_scale,
    run_sampler,
)
from sdapi.engine.text.composition import extract_tags
from sdapi.engine.text.conditioning import BatchCond, Conditioner, TextOptions
from sdapi.engine.text.schedule import Timeline
from sdapi.errors import ModelUnusable, OutOfMemory


@dataclass(slots=True)
class LoadedCheckpoint:
    """A checkpoint in memory, with the texts it has encoded."""

    components: Components
    conditioner: Conditioner = field(init=False)

    def __post_init__(self) -> None:
        self.conditioner = Conditioner(self.components)

    @property
    def size_bytes(self) -> int:
        return self.components.size_bytes

    def move(self, device: torch.device) -> None:
        """Move every part; encoded texts are forgotten, they live on the old device."""
        for module in self.components.modules:
            module.to(device)
        for encoder in self.components.text_encoders:
            if encoder.projection is not None:
                encoder.projection = encoder.projection.to(device)
        self.conditioner.clear()


@dataclass(slots=True)
class LoadedVAE:
    """A VAE from a file of its own."""

    module: Any

    @property
    def size_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.module.parameters())

    def move(self, device: torch.device) -> None:
        self.module.to(device)


@dataclass(slots=True)
class Engine:
    """One device and the models on it. `run` belongs to one thread."""

    device: torch.device
    precision: Precision
    cache: ModelCache[LoadedCheckpoint | LoadedVAE]
    #: fail a job whose result holds NaNs; without it they become black
    checks_nan: bool = True

    def load(self, checkpoint: ModelFile) -> None:
        """Bring a checkpoint into memory ahead of the first job; raises `ModelUnusable`."""
        with self._checkpoint(checkpoint):
            pass

    def has_loaded(self, checkpoint: ModelFile) -> bool:
        """Whether a job with this checkpoint would start without reading its file."""
        return checkpoint in self.cache

    def clear(self) -> None:
        """Drop every cached model."""
        self.cache.clear()

    def run(self, job: Job, monitor: Monitor) -> Result:
        """Draw a job's pictures.

        Raises `ModelUnusable`, `OutOfMemory`, `NanProduced`; the engine can take the next job after
        any of them.
        """
        try:
            with torch.inference_mode():
                return self._run(job, monitor)
        except torch.OutOfMemoryError as error:
            self.cache.clear()
            raise OutOfMemory(
                f"out of memory on {self.device} for {job.batch_size} x {job.width}x{job.height}; "
                "try a smaller size or batch"
            ) from error
        except RuntimeError as error:
            # What the CPU allocator raises has no class of its own.
            if "not enough memory" not in str(error) and "allocate memory" not in str(error):
                raise
            self.cache.clear()
            raise OutOfMemory(
                f"out of memory for {job.batch_size} x {job.width}x{job.height}; "
                "try a smaller size or batch"
            ) from error

    def _run(self, job: Job, monitor: Monitor) -> Result:
        monitor.job_count = job.n_iter
        started = time.perf_counter()
        with self._components(job) as (components, conditioner):
            loaded = time.perf_counter()
            run = _JobRun(
                self.device, job, components, conditioner, monitor, checks_nan=self.checks_nan
            )
            images = [image for batch in range(job.n_iter) for image in run.batch(batch)]
            done = time.perf_counter()
            return Result(
                images=tuple(images),
                extra=run.extra,
                is_inpainting_model=components.is_inpainting,
                interrupted=monitor.interrupted.is_set() or len(images) < len(job.prompts),
                load_s=loaded - started,
                sample_s=done - loaded - run.decode_s,
                decode_s=run.decode_s,
            )

    @contextmanager
    def _components(self, job: Job) -> Generator[tuple[Components, Conditioner]]:
        with self._checkpoint(job.checkpoint) as loaded:
            if job.vae is None:
                yield loaded.components, loaded.conditioner
                return
            file = job.vae
            with self.cache.use(("vae", file), lambda: self._load_vae(file, loaded)) as found:
                assert isinstance(found, LoadedVAE)
                yield replace(loaded.components, vae=found.module), loaded.conditioner

    @contextmanager
    def _checkpoint(self, file: ModelFile) -> Generator[LoadedCheckpoint]:
        with self.cache.use(file, lambda: self._load_checkpoint(file)) as found:
            assert isinstance(found, LoadedCheckpoint)
            yield found

    def _load_checkpoint(self, file: ModelFile) -> LoadedCheckpoint:
        return LoadedCheckpoint(load_checkpoint(file.path, file.sidecar, self.precision))

    def _load_vae(self, file: ModelFile, beside: LoadedCheckpoint) -> LoadedVAE:
        weights = read_state_dict(file.path)
        prefix = "first_stage_model."
        if any(key.startswith(prefix) for key in weights):
            weights = {
                k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)
            }
        try:
            module = load_vae(weights, beside.components.scale_factor, self.precision.vae)
        except ModelUnusable as error:
            raise ModelUnusable(f"{file.path.name}: {error}") from error
        if module.config["latent_channels"] != beside.components.latent_channels:
            raise ModelUnusable(f"{file.path.name}: a VAE for another kind of model")
        return LoadedVAE(module)


class _JobRun:
    """One job on loaded components, batch by batch."""

    def __init__(
        self,
        device: torch.device,
        job: Job,
        components: Components,
        conditioner: Conditioner,
        monitor: Monitor,
        *,
        checks_nan: bool,
    ) -> None:
        self.checks_nan = checks_nan
        self.device = device
        self.job = job
        self.components = components
        self.conditioner = conditioner
        self.monitor = monitor
        self.extra: dict[str, Any] = {}
        self.decode_s = 0.0
        self._init_latent: torch.Tensor | None = None

    def batch(self, number: int) -> list[GeneratedImage]:
        """Draw batch `number`; empty when the job was interrupted before it predicted anything."""
        if self.monitor.interrupted.is_set():
            return []
        self.monitor.skipped.clear()
        first = number * self.job.batch_size
        rows = slice(first, first + self.job.batch_size)
        try:
            latent = run_sampler(self._pass(rows), self.extra)
        except Stopped as stop:
            if stop.latent is None:
                return []
            latent = stop.latent
        started = time.perf_counter()
        images = vae.decode(
            self.components.vae,
            latent,
            self.components.scale_factor,
            widen_on_nan=self.job.options.auto_vae_precision,
            checks_nan=self.checks_nan,
        )
        self.decode_s += time.perf_counter() - started
        self.monitor.end_pass()
        return [GeneratedImage(first + i, image) for i, image in enumerate(images)]

    def _pass(self, rows: slice) -> SamplingPass:
        job = self.job
        return SamplingPass(
            job=job,
            components=self.components,
            predict=UNetPredictor(self.components, self._image_cond),
            guide=Guide(
                self._cond(rows),
                Guidance(guidance_scale(job), job.options.batch_cond_uncond),
                self.monitor,
            ),
            noise=self._noise(rows),
            monitor=self.monitor,
            start=self._start(len(job.prompts[rows])),
            checks_nan=self.checks_nan,
        )

    def _cond(self, rows: slice) -> BatchCond:
        job, options = self.job, self.job.options
        text_options = TextOptions(
            clip_skip=options.clip_skip,
            emphasis=options.emphasis,
            comma_backtrack=options.comma_backtrack,
            sdxl_clip_l_skip=options.sdxl_clip_l_skip,
            size=(job.height, job.width),
            crop=options.sdxl_crop,
        )
        timeline = Timeline(
            denoiser_calls(job, job.steps), use_old_scheduling=options.use_old_scheduling
        )
        prompts = [extract_tags(prompt)[0] for prompt in job.prompts[rows]]
        return self.conditioner.batch(prompts, job.negative_prompts[rows], timeline, text_options)

    def _noise(self, rows: slice) -> ImageNoise:
        job, options = self.job, self.job.options
        resize = job.seed_resize_from
        seeds = Seeds(
            job.seeds[rows],
            job.subseeds[rows],
            job.subseed_strength,
            None if resize is None else (resize[1] // 8, resize[0] // 8),
            options.eta_noise_seed_delta,
        )
        shape = (self.components.latent_channels, *job.latent_size)
        return ImageNoise(NoiseSource(options.randn_source, self.device), shape, seeds)

    def _start(self, count: int) -> Start | None:
        init = self.job.init
        if init is None:
            return None
        if self._init_latent is None:
            self._init_latent = self._encode(init.images, latent_resize=init.latent_resize)
        latent = self._init_latent
        if len(latent) < count:
            latent = latent.expand(count, -1, -1, -1)
        return Start(
            latent[:count],
            init.denoising_strength,
            init.noise_multiplier,
            self.job.options.img2img_extra_noise,
            self.job.options.img2img_fix_steps,
        )

    def _encode(self, images: tuple[Image, ...], *, latent_resize: bool) -> torch.Tensor:
        # The reference's posterior noise is left over from its previous job; ours follows the seed.
        generator = torch.Generator().manual_seed(self.job.seeds[0] & 0x7FFFFFFFFFFFFFFF)
        latent = vae.encode(
            self.components.vae, vae.to_tensor(images), self.components.scale_factor, generator
        )
        if latent_resize:
            latent = torch.nn.functional.interpolate(
                latent, size=self.job.latent_size, mode="bilinear"
            )
        return latent

    @cached_property
    def _image_cond(self) -> torch.Tensor | None:
        """The same for every batch, since all have the job's size."""
        return image_conditioning(self.components, self.job, self.job.batch_size, self.device)
