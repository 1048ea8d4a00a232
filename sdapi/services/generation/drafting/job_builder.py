"""A validated request -> an immutable job. Bad input fails here, before anything is queued."""

from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from sdapi.engine.jobs.job import Job
from sdapi.engine.sampling.sampler_names import resolve
from sdapi.engine.text.grammar import compel_prompts
from sdapi.engine.text.grammar.composition import extract_tags, strip_comments
from sdapi.errors import BadRequest
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.catalog.catalog import Catalog, Checkpoint, VAEFile
from sdapi.services.catalog.face_restorers import FaceRestorers
from sdapi.services.catalog.networks import NetworkCatalog
from sdapi.services.catalog.object_models import FetchedModels
from sdapi.services.catalog.styles import Styles
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.drafting import hires_request, request_limits
from sdapi.services.generation.drafting.draft import Draft
from sdapi.services.generation.drafting.hires_request import HiresRequest
from sdapi.services.generation.drafting.model_choice import ModelChoice, NamedModel
from sdapi.services.generation.drafting.network_files import resolve_networks, with_default_networks
from sdapi.services.generation.drafting.refiner_request import names_refiner, refiner
from sdapi.services.generation.drafting.request_limits import required
from sdapi.services.generation.drafting.sampling_options import (
    GenerationRequest,
    churn,
    hypertile,
    hypertile_keys,
    or_option,
    sampling_options,
    token_merging_ratio,
    token_merging_ratio_hr,
)
from sdapi.services.generation.drafting.seeds import check_seeds, picture_seeds
from sdapi.services.generation.eas import EASFields
from sdapi.services.generation.pictures.img2img import (
    InitInputs,
    PreparedInit,
    RunsModel,
    prepare_init,
)

_MAX_PROMPT = 30_000
#: where the names are empty (contract: webui-api 6.2)
_DEFAULT_SAMPLER = "Euler"
Texts = tuple[str, ...]


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
        models = ModelChoice(self.catalog, request, options, eas, self.objects)
        building = _Building(self, request, options, models, inputs, first_picture)
        return building.draft(task_id)

    def texts(self, request: GenerationRequest, options: Options) -> tuple[str, str]:
        """Prompt and negative with styles and without comments."""
        prompt = required(request.prompt, "prompt")
        negative = required(request.negative_prompt, "negative_prompt")
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


@dataclass(frozen=True, slots=True)
class _Building:
    """One request on its way to a job."""

    builder: JobBuilder
    request: GenerationRequest
    options: Options
    models: ModelChoice
    inputs: InitInputs | None
    first_picture: Image.Image | None

    def draft(self, task_id: str) -> Draft:
        """The first pass, then what comes on top of it."""
        builder, request, options = self.builder, self.request, self.options
        request_limits.check(request, options)
        checkpoint, vae, job = self._first_pass(task_id)
        second_texts = self._second_texts()
        networks = resolve_networks(
            (job.prompts[0], *second_texts[:1]),
            builder.networks,
            options,
            builder.objects,
            are_disabled=bool(request.disable_extra_networks),
        )
        refining, second = self._further_models()
        prepared = self._prepared(job)
        init = prepared.init if prepared else None
        job = replace(job, networks=networks.files, init=init, **self._faces())
        keys: dict[str, Any] = hypertile_keys(job.hypertile) | (prepared.keys if prepared else {})
        if refining is not None:
            job = replace(job, refiner=refiner(request, options, refining))
        job, hires_keys = self._with_hires(job, second, second_texts)
        check_seeds(job)
        return Draft(
            job,
            checkpoint,
            vae,
            styles=tuple(request.styles or ()),
            style_prompts=tuple(builder.styles[name].prompt for name in request.styles or ()),
            warnings=networks.warnings,
            keys=keys | hires_keys,
            loras=networks.loras,
            prepared=prepared,
            refiner=refining.checkpoint if refining else None,
        )

    def _first_pass(self, task_id: str) -> tuple[Checkpoint, VAEFile | None, Job]:
        """The job of the only pass, or of the first, without what it starts from."""
        request, options = self.request, self.options
        size = request_limits.picture_size(request, options)
        given = len(self.inputs.images) if self.inputs else 0
        batch_size, n_iter = request_limits.counts(request)
        asked_sampler = request.sampler_name or request.sampler_index or _DEFAULT_SAMPLER
        sampler, scheduler = resolve(asked_sampler, request.scheduler)
        checkpoint = self.models.checkpoint()
        vae = self.models.vae(checkpoint)
        prompt, negative = self.builder.texts(request, options)
        seeds, subseeds = picture_seeds(request, batch_size * n_iter)
        job = Job(
            id=task_id,
            prompts=(prompt,) * len(seeds),
            negative_prompts=(negative,) * len(seeds),
            seeds=seeds,
            subseeds=subseeds,
            checkpoint=self.models.checkpoint_file(checkpoint),
            vae=self.models.vae_file(vae),
            sampler=sampler,
            scheduler=scheduler,
            steps=request_limits.step_count(request),
            cfg_scale=required(request.cfg_scale, "cfg_scale"),
            width=size[0],
            height=size[1],
            # Several init pictures are a batch; seeds and prompts stay as many as were asked for.
            batch_size=given if given > 1 else batch_size,
            n_iter=n_iter,
            **self._fractions(),
        )
        return checkpoint, vae, job

    def _fractions(self) -> dict[str, Any]:
        """The fields of a job that are a request's or, where it is silent, options'."""
        request, options = self.request, self.options
        return {
            "subseed_strength": float(request.subseed_strength or 0),
            "seed_resize_from": request_limits.seed_resize(request),
            "eta": request.eta,
            "churn": churn(options, request),
            "s_min_uncond": or_option(request.s_min_uncond, options, "s_min_uncond"),
            "tiling": options.flag("tiling") if request.tiling is None else request.tiling,
            "token_merging_ratio": token_merging_ratio(options, request),
            "token_merging_ratio_hr": token_merging_ratio_hr(options),
            "hypertile": hypertile(options),
            "options": sampling_options(options),
        }

    def _prepared(self, job: Job) -> PreparedInit | None:
        """What img2img starts from, for a job that lacks it."""
        request, builder = self.request, self.builder
        if self.inputs is None or not isinstance(request, Img2ImgRequest):
            return None
        return prepare_init(
            self.inputs,
            request,
            self.options,
            (job.width, job.height),
            job.picture_count,
            builder.upscalers,
            builder.runs_model,
        )

    def _faces(self) -> dict[str, Any]:
        """The fields of a job whose faces are restored; none of another's."""
        options, asked = self.options, self.request.restore_faces
        if not (options.flag("face_restoration") if asked is None else asked):
            return {}
        name, weight = options.text("face_restoration_model"), options.number("code_former_weight")
        restorers = FaceRestorers(self.builder.upscalers.settings)
        return {
            "faces": restorers.find(name, weight=weight),
            "keeps_faces": options.flag("save_images_before_face_restoration"),
        }

    def _further_models(self) -> tuple[NamedModel | None, NamedModel | None]:
        """The refiner, and the checkpoint of the second pass alone."""
        request, name = self.request, names_refiner(self.request)
        refining = None if name is None else self.models.further(name)
        second = None
        if isinstance(request, Txt2ImgRequest) and request.enable_hr:
            name = hires_request.names_checkpoint(request)
            second = None if name is None else self.models.further(name)
        return refining, second

    def _with_hires(
        self, job: Job, model: NamedModel | None, texts: Texts
    ) -> tuple[Job, dict[str, Any]]:
        """The job with its second pass, and the infotext keys of that."""
        request, options = self.request, self.options
        if not isinstance(request, Txt2ImgRequest) or not request.enable_hr:
            return job, {}
        size = hires_request.second_size(request, options, (job.width, job.height))
        request_limits.check_size(size.size, "the second pass")
        request_limits.check_size(size.picture, "the second pass")
        if request.hr_second_pass_steps:
            request_limits.check_steps(request.hr_second_pass_steps, "hr_second_pass_steps")
        second = HiresRequest(request, options, job, model, size)
        hires = second.build(self.builder.upscalers, texts, self.first_picture)
        return replace(job, hires=hires), second.keys(hires)

    def _second_texts(self) -> Texts:
        """Prompt and negative of the second pass of hires fix; empty without one."""
        request = self.request
        if not isinstance(request, Txt2ImgRequest) or not request.enable_hr:
            return ()
        second = {
            "prompt": request.hr_prompt or request.prompt,
            "negative_prompt": request.hr_negative_prompt or request.negative_prompt,
        }
        return self.builder.texts(request.model_copy(update=second), self.options)
