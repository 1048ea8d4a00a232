"""A validated request -> an immutable job. Bad input fails here, before anything is queued."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from sdapi.engine.job import Job, ModelFile
from sdapi.engine.sampling.sampler_names import resolve
from sdapi.engine.text import compel_prompts
from sdapi.engine.text.composition import extract_tags, strip_comments
from sdapi.errors import BadRequest, NotBuilt, near_names
from sdapi.images.named_colour import rgba
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.catalog.catalog import AUTOMATIC, NONE, Catalog, Checkpoint, VAEFile
from sdapi.services.catalog.face_restorers import FaceRestorers
from sdapi.services.catalog.networks import Lora, NetworkCatalog
from sdapi.services.catalog.object_models import FetchedModels
from sdapi.services.catalog.styles import Styles
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation import hires_request
from sdapi.services.generation.eas import EASFields
from sdapi.services.generation.hires_request import HiresRequest
from sdapi.services.generation.img2img import InitInputs, PreparedInit, RunsModel, prepare_init
from sdapi.services.generation.named_model import NamedModel, find_further_checkpoint
from sdapi.services.generation.network_files import resolve_networks, with_default_networks
from sdapi.services.generation.refiner_request import names_refiner, refiner
from sdapi.services.generation.sampling_options import (
    GenerationRequest,
    churn,
    hypertile,
    hypertile_keys,
    or_option,
    sampling_options,
    token_merging_ratio,
    token_merging_ratio_hr,
)
from sdapi.services.generation.seeds import picture_seeds

#: No device there is can draw a larger picture; a bound for what a caller may ask.
_MAX_PIXELS = 64_000_000
_MAX_IMAGES = 1000
_MAX_PROMPT = 30_000
_FILE_FORMATS = ("png", "jpg", "jpeg", "webp", "avif")
_MAX_STEPS = 10_000
_MAX_FRACTION = 1e5
_FRACTIONS = (
    "cfg_scale",
    "denoising_strength",
    "eta",
    "image_cfg_scale",
    "initial_noise_multiplier",
    "s_churn",
    "s_min_uncond",
    "s_noise",
    "s_tmin",
    "subseed_strength",
)
#: Options whose feature is still to come, and the values under which they change nothing.
_TO_COME_OPTIONS: dict[str, tuple[object, ...]] = {
    "fp8_storage": ("Disable",),
    "use_old_emphasis_implementation": (False,),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A job with what its answer needs besides."""

    job: Job
    checkpoint: Checkpoint
    vae: VAEFile | None
    styles: tuple[str, ...]
    #: the texts that those put into the prompt
    style_prompts: tuple[str, ...]
    warnings: tuple[str, ...]
    #: infotext keys that are known before anything is drawn, in order
    keys: dict[str, Any]
    #: the files of the LoRAs that prompts name, by the names they have there
    loras: Mapping[str, Lora] = field(default_factory=dict[str, Lora])
    #: img2img's beginning and end
    prepared: PreparedInit | None = None
    refiner: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class _FurtherModels:
    refiner: NamedModel | None = None
    hires: NamedModel | None = None


@dataclass(frozen=True, slots=True)
class JobBuilder:
    """Resolves names, numbers and texts of requests against what this server has."""

    catalog: Catalog
    styles: Styles
    networks: NetworkCatalog
    upscalers: Upscalers
    #: enlarges img2img's pictures where option `upscaler_for_img2img` names a model
    runs_model: RunsModel
    #: models of object stores that were fetched for the request
    objects: FetchedModels = field(default_factory=FetchedModels)

    def build(
        self,
        task_id: str,
        request: GenerationRequest,
        options: Options,
        eas: EASFields,
        inputs: InitInputs | None = None,
        first_picture: Image.Image | None = None,
    ) -> Draft:
        """Make a job of a request; `inputs` are img2img's pictures.

        `first_picture` stands for the first pass of hires fix.

        Raises `BadRequest` and its kin for what cannot work, `NotBuilt` for what is still to come,
        `NotFetched`, before anything slow, for a model of an object store.
        """
        refuse_what_is_to_come(options)
        _check_numbers(request)
        _check_pictures(options)
        size = _size(request, options)
        batch_size, n_iter = counts(request, len(inputs.images) if inputs else 0)
        sampler, scheduler = resolve(
            request.sampler_name or request.sampler_index, request.scheduler
        )
        checkpoint = self._checkpoint(request, options, eas)
        vae = self._vae(checkpoint, request, options, eas)
        prompt, negative = self.texts(request, options)
        second_texts = self._second_texts(request, options)
        prompts = (prompt, *second_texts[:1])
        networks = resolve_networks(
            prompts,
            self.networks,
            options,
            self.objects,
            are_disabled=bool(request.disable_extra_networks),
        )
        further = self._further_models(request, options, eas)
        count = batch_size * n_iter
        seeds, subseeds = picture_seeds(request, count)
        prepared = self._prepared(inputs, request, options, size, count)
        job = Job(
            id=task_id,
            prompts=(prompt,) * count,
            negative_prompts=(negative,) * count,
            seeds=seeds,
            subseeds=subseeds,
            checkpoint=ModelFile.usable(checkpoint.path, checkpoint.sidecar),
            vae=ModelFile.usable(vae.path) if vae else None,
            sampler=sampler,
            scheduler=scheduler,
            steps=_steps(request),
            cfg_scale=_required(request.cfg_scale, "cfg_scale"),
            width=size[0],
            height=size[1],
            batch_size=batch_size,
            n_iter=n_iter,
            subseed_strength=float(request.subseed_strength or 0),
            seed_resize_from=_seed_resize(request),
            eta=request.eta,
            churn=churn(options, request),
            s_min_uncond=or_option(request.s_min_uncond, options, "s_min_uncond"),
            tiling=options.flag("tiling") if request.tiling is None else request.tiling,
            token_merging_ratio=token_merging_ratio(options, request),
            token_merging_ratio_hr=token_merging_ratio_hr(options),
            hypertile=hypertile(options),
            init=prepared.init if prepared else None,
            options=sampling_options(options),
            networks=networks.files,
        )
        job = replace(job, **self._faces(request, options))
        keys: dict[str, Any] = hypertile_keys(job.hypertile) | (prepared.keys if prepared else {})
        if (model := further.refiner) is not None:
            job = replace(job, refiner=refiner(request, options, model))
        if isinstance(request, Txt2ImgRequest) and request.enable_hr:
            second = self._hires(request, options, further.hires, job)
            hires = second.build(self.upscalers, second_texts, first_picture)
            job, keys = replace(job, hires=hires), keys | second.keys(hires)
        return Draft(
            job,
            checkpoint,
            vae,
            tuple(request.styles or ()),
            tuple(self.styles[name].prompt for name in request.styles or ()),
            networks.warnings,
            keys,
            networks.loras,
            prepared,
            model.checkpoint if model else None,
        )

    def _prepared(
        self,
        inputs: InitInputs | None,
        request: GenerationRequest,
        options: Options,
        size: tuple[int, int],
        count: int,
    ) -> PreparedInit | None:
        if inputs is None or not isinstance(request, Img2ImgRequest):
            return None
        return prepare_init(inputs, request, options, size, count, self.upscalers, self.runs_model)

    def _checkpoint(
        self, request: GenerationRequest, options: Options, eas: EASFields
    ) -> Checkpoint:
        """The one the request names, which must be there, else the server's."""
        asked = eas.sd_model_checkpoint or (request.override_settings or {}).get(
            "sd_model_checkpoint"
        )
        if asked:
            return self.catalog.named(str(asked), self.objects)
        return self.catalog.default_checkpoint(options.text("sd_model_checkpoint"))

    def _vae(
        self,
        checkpoint: Checkpoint,
        request: GenerationRequest,
        options: Options,
        eas: EASFields,
    ) -> VAEFile | None:
        """The one the request names, which must be there, else the server's, if it is."""
        asked = eas.sd_vae or (request.override_settings or {}).get("sd_vae")
        name = str(asked) if asked else options.text("sd_vae") or AUTOMATIC
        if not asked and not self.catalog.has_vae(name):
            name = NONE
        wins = eas.sd_vae is not None or options.flag("sd_vae_overrides_per_model_preferences")
        return self.catalog.vae_for(checkpoint, name, self.objects, overrides=wins)

    def _further_models(
        self, request: GenerationRequest, options: Options, eas: EASFields
    ) -> "_FurtherModels":
        """The checkpoints that take over from the request's own."""
        refiner_name, hires_name = names_refiner(request), None
        if isinstance(request, Txt2ImgRequest) and request.enable_hr:
            hires_name = hires_request.names_checkpoint(request)

        def model(name: str | None) -> NamedModel | None:
            return None if name is None else self._named_model(name, request, options, eas)

        return _FurtherModels(model(refiner_name), model(hires_name))

    def _named_model(
        self, name: str, request: GenerationRequest, options: Options, eas: EASFields
    ) -> NamedModel:
        """A checkpoint beside the job's own, with its VAE."""
        checkpoint = find_further_checkpoint(self.catalog, name, self.objects)
        vae = self._vae(checkpoint, request, options, eas)
        return NamedModel(
            checkpoint,
            ModelFile.usable(checkpoint.path, checkpoint.sidecar),
            ModelFile.usable(vae.path) if vae else None,
        )

    def _faces(self, request: GenerationRequest, options: Options) -> dict[str, Any]:
        """The fields of a job whose faces are restored; none of another's."""
        asked = request.restore_faces
        if not (options.flag("face_restoration") if asked is None else asked):
            return {}
        name, weight = options.text("face_restoration_model"), options.number("code_former_weight")
        return {
            "faces": FaceRestorers(self.upscalers.settings).find(name, weight=weight),
            "keeps_faces": options.flag("save_images_before_face_restoration"),
        }

    def _hires(
        self, request: Txt2ImgRequest, options: Options, model: NamedModel | None, job: Job
    ) -> HiresRequest:
        size = hires_request.second_size(request, options, (job.width, job.height))
        _check_size(size.size, "the second pass")
        _check_size(size.picture, "the second pass")
        if request.hr_second_pass_steps:
            _check_steps(request.hr_second_pass_steps, "hr_second_pass_steps")
        return HiresRequest(request, options, job, model, size)

    def _second_texts(self, request: GenerationRequest, options: Options) -> tuple[str, ...]:
        """Prompt and negative of the second pass of hires fix; empty without one."""
        if not isinstance(request, Txt2ImgRequest) or not request.enable_hr:
            return ()
        second = {
            "prompt": request.hr_prompt or request.prompt,
            "negative_prompt": request.hr_negative_prompt or request.negative_prompt,
        }
        return self.texts(request.model_copy(update=second), options)

    def texts(self, request: GenerationRequest, options: Options) -> tuple[str, str]:
        """Prompt and negative with styles and without comments."""
        prompt = _required(request.prompt, "prompt")
        negative = _required(request.negative_prompt, "negative_prompt")
        prompt, negative = self.styles.apply(prompt, negative, request.styles or [])
        for name, text in (("prompt", prompt), ("negative_prompt", negative)):
            if len(text) > _MAX_PROMPT:
                raise BadRequest(f"{name}: {len(text)} characters; at most {_MAX_PROMPT}")
        if options.flag("enable_prompt_comments"):
            prompt, negative = strip_comments(prompt), strip_comments(negative)
        if not request.disable_extra_networks:
            prompt = with_default_networks(prompt, self.networks, options)
        if options.text("prompt_attention") == "compel":
            for text in (prompt, negative):
                compel_prompts.parse(extract_tags(text)[0])
        return prompt, negative


def refuse_what_is_to_come(options: Options) -> None:
    """Raise `NotBuilt` for an option that would act, were its feature here."""
    for key, neutral in _TO_COME_OPTIONS.items():
        if options[key] is not None and options[key] not in neutral:
            raise NotBuilt(f"option {key}: {options[key]!r} is not available yet")


def _check_numbers(request: GenerationRequest) -> None:
    """Fractions must be numbers that arithmetic survives; what they mean is not judged."""
    for name in _FRACTIONS:
        value = getattr(request, name, None)
        if value is not None and not abs(value) <= _MAX_FRACTION:
            raise BadRequest(
                f"{name}: {value} is out of range; at most {_MAX_FRACTION:g} either way"
            )


def check_formats(options: Options) -> None:
    """Refuse file formats and sizes that saving would only fail on after drawing."""
    for key in ("samples_format", "grid_format"):
        if options.text(key).lower() not in _FILE_FORMATS:
            names = near_names(options.text(key), _FILE_FORMATS)
            raise BadRequest(f"{key}: {options.text(key)!r} is no file format; there are {names}")
    if options.integer("target_side_length") < 1:
        raise BadRequest("target_side_length: it must be at least 1")


def _check_pictures(options: Options) -> None:
    rgba(options.text("grid_background_color"), "grid_background_color")


def _required(value: Any, name: str) -> Any:
    if value is None:
        raise BadRequest(f"{name}: null is not allowed here")
    return value


def _size(request: GenerationRequest, options: Options) -> tuple[int, int]:
    size = _required(request.width, "width"), _required(request.height, "height")
    if isinstance(request, Txt2ImgRequest):
        size = hires_request.first_size(request, options)
    _check_size(size, "the picture")
    return size


def _check_size(size: tuple[int, int], what: str) -> None:
    width, height = size
    for name, side in (("width", width), ("height", height)):
        if side < 8:
            raise BadRequest(f"{name}: {side} is too small; {what} has at least 8 pixels a side")
    if width * height > _MAX_PIXELS:
        raise BadRequest(
            f"width, height: {width}x{height} is more than {_MAX_PIXELS // 1_000_000} megapixels, "
            f"the most for {what}"
        )


def counts(request: GenerationRequest, init_images: int = 0) -> tuple[int, int]:
    """The pictures of a batch, and the batches; raises `BadRequest` for none and too many."""
    batch_size = _required(request.batch_size, "batch_size")
    n_iter = _required(request.n_iter, "n_iter")
    for name, number in (("batch_size", batch_size), ("n_iter", n_iter)):
        if number < 1:
            raise BadRequest(f"{name}: {number} draws nothing; it must be at least 1")
    if batch_size * n_iter > _MAX_IMAGES:
        raise BadRequest(
            f"batch_size, n_iter: {batch_size * n_iter} pictures in one request; "
            f"at most {_MAX_IMAGES}"
        )
    return (init_images if init_images > 1 else batch_size), n_iter


def _steps(request: GenerationRequest) -> int:
    steps = _required(request.steps, "steps")
    _check_steps(steps, "steps")
    return steps


def _check_steps(steps: int, name: str) -> None:
    if steps < 1:
        raise BadRequest(f"{name}: {steps} is too few; it must be at least 1")
    if steps > _MAX_STEPS:
        raise BadRequest(f"{name}: {steps} is too many; at most {_MAX_STEPS}")


def _seed_resize(request: GenerationRequest) -> tuple[int, int] | None:
    width, height = request.seed_resize_from_w or 0, request.seed_resize_from_h or 0
    if width * height > _MAX_PIXELS:
        raise BadRequest(
            f"seed_resize_from_w, seed_resize_from_h: {width}x{height} is more than "
            f"{_MAX_PIXELS // 1_000_000} megapixels"
        )
    return (width, height) if width > 0 and height > 0 else None
