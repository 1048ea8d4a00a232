"""One job on one device, batch by batch: networks, conditioning, sampling, decoding, finishing."""

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from PIL.Image import Image
from torch import Tensor

from sdapi.engine.adaptations.sampling_run import adapted_unet, adapted_vae
from sdapi.engine.drawing import hires
from sdapi.engine.drawing.decoded_preview import show_preview
from sdapi.engine.drawing.job_models import JobModels
from sdapi.engine.drawing.job_start import JobStart
from sdapi.engine.drawing.pass_plan import Batch, Model, PassPlan
from sdapi.engine.drawing.refiner import Relief, handover
from sdapi.engine.drawing.told import Told
from sdapi.engine.faces.restorer import FaceRestoration
from sdapi.engine.faces.restoring import restore_faces
from sdapi.engine.jobs.job import BEFORE_FACES, BEFORE_HIRES, GeneratedImage, HiresPass, Job, Result
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.latents import vae
from sdapi.engine.latents.latent_modes import LatentMode
from sdapi.engine.models.device_models import Models
from sdapi.engine.networks.selection import select
from sdapi.engine.sampling.denoising.guidance import Stopped
from sdapi.engine.sampling.denoising.soft_inpainting import SoftBlend, composite_masks
from sdapi.engine.sampling.sampling_pass import Start, denoiser_calls, run_sampler
from sdapi.engine.text.cond import BatchCond
from sdapi.engine.text.grammar.schedule import Timeline
from sdapi.engine.upscaling.upscale import upscale_with
from sdapi.images.resize import Upscale


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a pass ended with: its latent, and the model that drew last, whose VAE decodes it."""

    plan: PassPlan
    model: Model
    latent: Tensor

    @property
    def covers(self) -> Sequence[Image | None]:
        """What soft inpainting covers of each init picture; without it all is left to the mask."""
        if isinstance(self.plan.blend, SoftBlend):
            return composite_masks(self.plan.blend, self.latent)
        return [None] * len(self.latent)


@dataclass(slots=True)
class JobRun:
    """A job while it runs. Made for one call of `run`."""

    models: Models
    job: Job
    monitor: Monitor
    checks_nan: bool = True
    _lent: JobModels = field(init=False)
    _start: JobStart = field(init=False)
    _told: Told = field(init=False)
    #: Hypertile's choices
    _tile_choice: random.Random = field(init=False)
    #: what the running sampler draws with
    _drawing: Model | None = None
    _decode_s: float = 0.0

    def __post_init__(self) -> None:
        self._lent = JobModels(self.models, self.job, self.checks_nan)
        self._start = JobStart(self.models, self.job)
        self._told = Told(self.job)
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
        if self._drawing is not None:
            show_preview(self.models, self._drawing, self.monitor)

    def _run(self) -> Result:
        started = time.perf_counter()
        self.monitor.begin_job(self.job.n_iter * (1 if self.job.hires is None else 2))
        images: list[GeneratedImage] = []
        is_inpainting = edits = False
        for number in range(self.job.n_iter):
            with self._lent.lend(self.job) as model:
                is_inpainting = model.components.is_inpainting
                edits = model.components.is_instruct_pix2pix
                images += self._draw(model, self._batch(number))
        total = time.perf_counter() - started
        return Result(
            images=tuple(images),
            extra=self._told.extra,
            warnings=self._told.all_warnings,
            is_inpainting_model=is_inpainting,
            is_editing_model=edits,
            interrupted=self.monitor.interrupted.is_set() or len(images) < self.job.picture_count,
            load_s=self._lent.load_s,
            sample_s=total - self._lent.load_s - self._decode_s,
            decode_s=self._decode_s,
            extra_images=tuple(each for s in self.job.stages for each in s.extra_images),
            detected_maps=tuple(each for s in self.job.stages for each in s.detected_maps),
        )

    def _batch(self, number: int) -> Batch:
        first = number * self.job.batch_size
        rows = slice(first, first + self.job.batch_size)
        return Batch(number, rows, len(self.job.prompts[rows]))

    def _draw(self, model: Model, batch: Batch) -> list[GeneratedImage]:
        """One batch; empty when the job was interrupted before it predicted anything."""
        if self.monitor.interrupted.is_set():
            return []
        self.monitor.skipped.clear()
        with ExitStack() as lent:
            drawn, variants = self._passes(model, batch, lent)
            if drawn is None:
                return []
            images: Sequence[Image] = self._decode(drawn)
            for stages in self.job.stages:
                images = stages.after_decode(images)
            if self.job.faces is not None:
                if self.job.keeps_faces:
                    variants[BEFORE_FACES] = list(images)
                images = [self._with_faces(image, self.job.faces) for image in images]
        self.monitor.end_pass()
        covers = drawn.covers
        return [
            GeneratedImage(
                batch.numbers[i],
                image,
                covers[i],
                {name: kept[i] for name, kept in variants.items()},
            )
            for i, image in enumerate(images)
        ]

    def _passes(
        self, model: Model, batch: Batch, lent: ExitStack
    ) -> tuple[Drawn | None, dict[str, list[Image]]]:
        """What the last pass drew, and pictures to keep of the one before; models join `lent`."""
        asked = self.job.hires
        first = None
        self._activate(model, self.job.prompts[batch.rows.start])
        if asked is None or asked.first_picture is None:
            plan = self._first_pass(model, batch)
            first = self._sample(plan, model, self._encode_texts(plan, model), lent)
            if asked is None or first is None or self.monitor.interrupted.is_set():
                return first, {}
        return self._second_pass(asked, model, first, batch, lent)

    def _second_pass(
        self,
        asked: HiresPass,
        model: Model,
        first: Drawn | None,
        batch: Batch,
        lent: ExitStack,
    ) -> tuple[Drawn, dict[str, list[Image]]]:
        """Enlarge what the first pass drew and draw over it; None stands for a given picture."""
        pictures = [asked.first_picture] * batch.count if asked.first_picture else []
        if first is not None and (asked.keeps_first or not isinstance(asked.upscaler, LatentMode)):
            pictures = self._decode(first)
        variants = {BEFORE_HIRES: pictures} if asked.keeps_first else {}
        job = hires.second_pass(self.job, asked)
        if (job.checkpoint, job.vae) != (self.job.checkpoint, self.job.vae):
            model = lent.enter_context(self._lent.lend(job))
        noise = hires.encoder_noise(job.seeds[batch.numbers[-1]])
        enlarger = hires.Enlarger(
            asked, job, model.components, noise, partial(self._pictures, job, model)
        )
        if first is not None and isinstance(asked.upscaler, LatentMode):
            enlarged = enlarger.of_latent(first.latent)
        else:
            enlarged = enlarger.of_pictures(pictures, self._upscale(asked))
        self.monitor.end_pass()
        self._tile_choice = random.Random(job.seeds[0])
        plan = self._hires_plan(asked, job, batch, enlarged)
        cond = self._encode_texts(plan, model) if asked.uses_first_networks else None
        self._activate(model, asked.prompts[batch.rows.start])
        drawn = self._sample(plan, model, cond or self._encode_texts(plan, model), lent)
        hires.merge_keys(self._told.extra, plan.extra)
        return drawn or Drawn(plan, model, enlarged.latent), variants

    def _upscale(self, asked: HiresPass) -> Upscale | None:
        if isinstance(asked.upscaler, LatentMode):
            return None
        return upscale_with(self.models, asked.upscaler, self.monitor.interrupted)

    def _hires_plan(
        self, asked: HiresPass, job: Job, batch: Batch, enlarged: hires.Enlarged
    ) -> PassPlan:
        start = Start(
            enlarged.latent,
            asked.denoising_strength,
            extra_noise=job.options.img2img_extra_noise,
            fix_steps=True,
        )
        timeline = hires.timeline(self.job, job)
        return PassPlan(job, batch, start, enlarged.image_cond, timeline, is_second=True)

    def _activate(self, model: Model, prompt: str) -> None:
        """Give a model the networks that a prompt's tags name; those it had before leave it.

        Belongs before a pass is encoded. The first prompt of a batch speaks for all of it; a pass
        with prompts of its own, or on another checkpoint, activates again.
        """
        files = self.job.networks
        self._told.warn(self.models.activate(model.loaded, select(prompt, files), files))
        self._told.loras(model.loaded.networks.lora_names)

    def _encode_texts(self, plan: PassPlan, model: Model) -> BatchCond:
        """The prompts of a pass, with what there is to tell of them."""
        cond = plan.cond(model)
        self._told.texts(cond, is_second=plan.is_second)
        return cond

    def _sample(
        self, plan: PassPlan, model: Model, cond: BatchCond, lent: ExitStack
    ) -> Drawn | None:
        """What a pass drew; of one that was stopped what it predicted last, if anything."""
        relief = Relief(plan, model, lambda: self._refiner(plan, lent))
        sampling = plan.sampling_pass(
            model,
            cond,
            self.monitor,
            self.models,
            handover(self.job, plan, relief),
            checks_nan=self.checks_nan,
        )
        for stages in self.job.stages:
            sampling = stages.begin_pass(sampling)
        inversion = plan.job.init.inversion if plan.job.init else None
        self._drawing = model
        try:
            with adapted_unet(model.components, plan.job, self._tile_choice):
                if inversion is not None:
                    sampling = self._start.inverted(inversion, plan, model, sampling)
                latent = run_sampler(sampling, plan.extra)
        except Stopped as stop:
            latent = stop.latent
        finally:
            self._drawing = None
        if latent is None:
            return None
        if sampling.blend is not None and inversion is None:
            latent = sampling.blend.after(latent)
        for stages in self.job.stages:
            latent = stages.end_pass(sampling, latent)
        return Drawn(plan, relief.model or model, latent)

    def _refiner(self, plan: PassPlan, lent: ExitStack) -> Model:
        """The model that takes over, with the networks of the batch."""
        assert self.job.refiner is not None
        refiner = self.job.refiner
        job = replace(plan.job, checkpoint=refiner.checkpoint, vae=refiner.vae)
        model = lent.enter_context(self._lent.lend(job))
        self._activate(model, job.prompts[plan.batch.rows.start])
        lent.enter_context(adapted_unet(model.components, job, self._tile_choice))
        return model

    def _first_pass(self, model: Model, batch: Batch) -> PassPlan:
        start = self._start
        start.encode(model)
        timeline = Timeline(
            denoiser_calls(self.job, self.job.steps),
            use_old_scheduling=self.job.options.use_old_scheduling,
        )
        return PassPlan(
            self.job,
            batch,
            start.start,
            start.image_cond,
            timeline,
            start.blend,
            extra=self._told.extra,
        )

    def _with_faces(self, image: Image, asked: FaceRestoration) -> Image:
        restored, missing = restore_faces(self.models, image, asked)
        self._told.warnings |= dict.fromkeys(missing)
        return restored

    def _decode(self, drawn: Drawn) -> list[Image]:
        return self._pictures(drawn.plan.job, drawn.model, drawn.latent)

    def _pictures(self, job: Job, model: Model, latent: Tensor) -> list[Image]:
        started, components = time.perf_counter(), model.components
        with adapted_vae(components.vae, job, self._tile_choice):
            images = vae.decode(components.vae, latent, components.scale_factor, components.nans)
        if self.job.options.vae_decode_method != "Full":
            self._told.extra["VAE Decoder"] = self.job.options.vae_decode_method
        self._decode_s += time.perf_counter() - started
        return images
