"""One job on one device, batch by batch: networks, conditioning, sampling, decoding, finishing."""

import random
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL.Image import Image
from torch import Tensor

from sdapi.engine import hires
from sdapi.engine.adaptations.circular import circular_padding
from sdapi.engine.adaptations.sampling_run import adapted_unet, adapted_vae
from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.checkpoints.precision import NanRule, wider_vae_type
from sdapi.engine.faces.restorer import FaceRestoration
from sdapi.engine.faces.restoring import restore_faces
from sdapi.engine.init_images import Inversion
from sdapi.engine.job import BEFORE_FACES, BEFORE_HIRES, GeneratedImage, HiresPass, Job, Result
from sdapi.engine.latents import vae
from sdapi.engine.latents.decoded_preview import show_preview
from sdapi.engine.latents.image_cond import image_conditioning
from sdapi.engine.latents.init_latent import InitLatent, encode_init, seeded_generator
from sdapi.engine.latents.latent_modes import LatentMode
from sdapi.engine.latents.tiny_vae import Half
from sdapi.engine.models import Models
from sdapi.engine.monitor import Monitor
from sdapi.engine.networks.selection import select
from sdapi.engine.pass_plan import Batch, Model, PassPlan
from sdapi.engine.refiner import Relief, handover
from sdapi.engine.sampling.guidance import Stopped
from sdapi.engine.sampling.inversion import find_noise, from_found_noise
from sdapi.engine.sampling.noise import NoiseSource
from sdapi.engine.sampling.sampling_pass import SamplingPass, Start, denoiser_calls, run_sampler
from sdapi.engine.sampling.soft_inpainting import SoftBlend, composite_masks
from sdapi.engine.text.conditioning import BatchCond
from sdapi.engine.text.notes import ti_hashes
from sdapi.engine.text.schedule import Timeline
from sdapi.engine.upscaling.upscale import upscale_with
from sdapi.errors import ModelUnusable
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
    #: infotext keys that come up, in order
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    #: what could not be used, in order
    warnings: dict[str, None] = field(default_factory=dict[str, None])
    _init: InitLatent | None = None
    _image_cond: Tensor | None = None
    _is_encoded: bool = False
    #: behind the init picture
    _found_noise: Tensor | None = None
    #: Hypertile's choices
    _tile_choice: random.Random = field(init=False)
    #: what the running sampler draws with
    _drawing: Model | None = None
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
        if self._drawing is not None:
            show_preview(self.models, self._drawing, self.monitor)

    def _run(self) -> Result:
        started = time.perf_counter()
        self.monitor.begin_job(self.job.n_iter * (1 if self.job.hires is None else 2))
        images: list[GeneratedImage] = []
        is_inpainting = edits = False
        for number in range(self.job.n_iter):
            with self._model(self.job) as model:
                is_inpainting = model.components.is_inpainting
                edits = model.components.is_instruct_pix2pix
                images += self._draw(model, self._batch(number))
        total = time.perf_counter() - started
        return Result(
            images=tuple(images),
            extra=self.extra,
            warnings=tuple(self.warnings | self._told_by_stages),
            is_inpainting_model=is_inpainting,
            is_editing_model=edits,
            interrupted=self.monitor.interrupted.is_set() or len(images) < len(self.job.prompts),
            load_s=self._load_s,
            sample_s=total - self._load_s - self._decode_s,
            decode_s=self._decode_s,
            extra_images=tuple(each for s in self.job.stages for each in s.extra_images),
            detected_maps=tuple(each for s in self.job.stages for each in s.detected_maps),
        )

    @property
    def _told_by_stages(self) -> dict[str, None]:
        return dict.fromkeys(text for stages in self.job.stages for text in stages.warnings)

    @contextmanager
    def _model(self, job: Job) -> Generator[Model]:
        """The checkpoint of a job, as one of its passes sees it, with the job's VAE in place."""
        started = time.perf_counter()
        with (
            self.models.checkpoint(job.checkpoint) as loaded,
            self._vae(job, loaded.components) as module,
        ):
            self._load_s += time.perf_counter() - started
            components = replace(loaded.components, vae=module, nans=self._nan_rule(job))
            with circular_padding((components.unet, module), wanted=job.tiling):
                yield Model(components, loaded.conditioner, loaded)

    def _nan_rule(self, job: Job) -> NanRule:
        options = job.options
        wider = wider_vae_type(
            prefers_bfloat16=options.auto_vae_precision_bfloat16, allowed=options.auto_vae_precision
        )
        return NanRule(self.checks_nan, wider)

    @contextmanager
    def _vae(self, job: Job, components: Components) -> Generator[AutoencoderKL]:
        """The job's VAE, or the checkpoint's own; TAESD in place of the halves that ask for it."""
        options, halves = job.options, list[Half]()
        encodes = self.job.init is not None or self.job.hires is not None
        if encodes and options.vae_encode_method == "TAESD":
            halves.append("encoder")
        if options.vae_decode_method == "TAESD":
            halves.append("decoder")
        with ExitStack() as lent:
            full = components.vae
            if job.vae is not None:
                full = lent.enter_context(self.models.vae(job.vae, components))
            yield lent.enter_context(self.models.tiny_halves(full, components, halves))

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
            model = lent.enter_context(self._model(job))
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
        hires.merge_keys(self.extra, plan.extra)
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

    def _encode_texts(self, plan: PassPlan, model: Model) -> BatchCond:
        """The prompts of a pass, with what there is to tell of them."""
        cond = plan.cond(model)
        for note in cond.notes:
            self._warn(note.refused)
        if plan.is_second:
            return cond
        if hashes := ti_hashes(cond.notes, tells_bundled=self.job.networks.tells_bundled):
            self.extra.setdefault("TI hashes", hashes)
        if _shows_emphasis(self.job):
            self.extra["Emphasis"] = self.job.options.emphasis
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
                    sampling = self._inverted(inversion, plan, model, sampling)
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
        model = lent.enter_context(self._model(job))
        self._activate(model, job.prompts[plan.batch.rows.start])
        lent.enter_context(adapted_unet(model.components, job, self._tile_choice))
        return model

    def _inverted(
        self, inversion: Inversion, plan: PassPlan, model: Model, sampling: SamplingPass
    ) -> SamplingPass:
        """A run that starts from the noise behind the picture, which all batches share."""
        assert sampling.start is not None
        if self._found_noise is None:
            cond = plan.inversion_cond(model, inversion)
            self._found_noise = find_noise(inversion, sampling, sampling.start, cond)
        return from_found_noise(inversion, sampling, sampling.start, self._found_noise)

    def _first_pass(self, model: Model, batch: Batch) -> PassPlan:
        if not self._is_encoded:
            self._encode(model)
        timeline = Timeline(
            denoiser_calls(self.job, self.job.steps),
            use_old_scheduling=self.job.options.use_old_scheduling,
        )
        return PassPlan(
            self.job,
            batch,
            self._start(),
            self._image_cond,
            timeline,
            self._init.blend if self._init else None,
            extra=self.extra,
        )

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

    def _with_faces(self, image: Image, asked: FaceRestoration) -> Image:
        restored, missing = restore_faces(self.models, image, asked)
        self.warnings |= dict.fromkeys(missing)
        return restored

    def _decode(self, drawn: Drawn) -> list[Image]:
        return self._pictures(drawn.plan.job, drawn.model, drawn.latent)

    def _pictures(self, job: Job, model: Model, latent: Tensor) -> list[Image]:
        started, components = time.perf_counter(), model.components
        with adapted_vae(components.vae, job, self._tile_choice):
            images = vae.decode(components.vae, latent, components.scale_factor, components.nans)
        if self.job.options.vae_decode_method != "Full":
            self.extra["VAE Decoder"] = self.job.options.vae_decode_method
        self._decode_s += time.perf_counter() - started
        return images


def _shows_emphasis(job: Job) -> bool:
    if job.options.emphasis == "Original":
        return False
    return any(
        bracket in text for text in (*job.prompts, *job.negative_prompts) for bracket in "(["
    )
