"""txt2img's fields for hires fix -> the second pass (contract: webui-generation 9)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from sdapi.engine.jobs.job import HiresPass, Job
from sdapi.engine.latents.latent_modes import LATENT_MODE_BY_NAME, LATENT_MODES, LatentMode
from sdapi.engine.sampling.sampler_names import SAMPLERS, SamplerInfo, resolve
from sdapi.engine.upscaling.upscaler import ModelUpscaler, Upscaler
from sdapi.errors import BadRequest, UnknownName, UnknownSampler, near_names
from sdapi.options import Options
from sdapi.schemas.generation import Txt2ImgRequest
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.drafting.model_choice import NamedModel

_SAME_CHECKPOINT = "Use same checkpoint"
_SAME_SAMPLER = "Use same sampler"
_SAME_SCHEDULER = "Use same scheduler"
_MAX_SCALE = 100.0
_OLD_FIRST_PASS_PIXELS, _OLD_STEP = 512 * 512, 64
_CELL = 8
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class HiresSize:
    """What the first pass is enlarged to, pixels, and the cells cut off it (x, y)."""

    size: Size
    surplus: Size = (0, 0)

    @property
    def picture(self) -> Size:
        """The size of the finished picture."""
        width, height = (side // _CELL * _CELL for side in self.size)
        return width - self.surplus[0] * _CELL, height - self.surplus[1] * _CELL


def scaled_size(first: Size, scale: float) -> HiresSize:
    """`scale` times the first pass, fractions of a pixel cut off."""
    return HiresSize((int(first[0] * scale), int(first[1] * scale)))


def resized_size(first: Size, x: int, y: int) -> HiresSize:
    """A target size; the first pass's ratio tells a side that is 0, two are both covered."""
    width, height = first
    by_width, by_height = (x, x * height // width), (y * width // height, y)
    if y == 0:
        return HiresSize(by_width)
    if x == 0:
        return HiresSize(by_height)
    size = by_width if width / height < x / y else by_height
    return HiresSize(size, ((size[0] - x) // _CELL, (size[1] - y) // _CELL))


def old_first_pass(target: Size) -> Size:
    """The first pass of option `use_old_hires_fix_width_height`: about 512x512 in whole 64s."""
    scale = math.sqrt(_OLD_FIRST_PASS_PIXELS / (target[0] * target[1]))
    width, height = (math.ceil(scale * side / _OLD_STEP) * _OLD_STEP for side in target)
    return width, height


def has_first_phase(request: Txt2ImgRequest) -> bool:
    """Whether the fields of a first pass of its own tell its size."""
    return bool(request.firstphase_width or request.firstphase_height)


def first_size(request: Txt2ImgRequest, options: Options) -> Size:
    """The size of the first pass, or of the only one."""
    size = request.width or 0, request.height or 0
    if has_first_phase(request):
        size = request.firstphase_width or 0, request.firstphase_height or 0
    if request.enable_hr and options.flag("use_old_hires_fix_width_height") and min(size) > 0:
        return old_first_pass(size)
    return size


def second_size(request: Txt2ImgRequest, options: Options, first: Size) -> HiresSize:
    """The size of the second pass; raises `BadRequest` for what is no size."""
    x, y = _asked_size(request, options)
    if x < 0 or y < 0:
        raise BadRequest(f"hr_resize_x, hr_resize_y: {x}x{y}; a side is 0 or more")
    if x or y:
        return resized_size(first, x, y)
    scale = _scale(request)
    if not 0 < scale <= _MAX_SCALE:
        raise BadRequest(f"hr_scale: {scale} is out of range; above 0, at most {_MAX_SCALE:g}")
    return scaled_size(first, scale)


def _asked_size(request: Txt2ImgRequest, options: Options) -> Size:
    if options.flag("use_old_hires_fix_width_height"):
        return request.width or 0, request.height or 0
    return request.hr_resize_x or 0, request.hr_resize_y or 0


def _scale(request: Txt2ImgRequest) -> float:
    return 2.0 if request.hr_scale is None else request.hr_scale


@dataclass(frozen=True, slots=True)
class HiresRequest:
    """A request with hires fix beside the job of its first pass."""

    request: Txt2ImgRequest
    options: Options
    job: Job
    #: the checkpoint named for the second pass alone
    model: NamedModel | None
    size: HiresSize

    def build(
        self, upscalers: Upscalers, texts: Sequence[str], first_picture: Image | None
    ) -> HiresPass:
        """The second pass; `texts` are its prompt and negative prompt.

        Raises `BadRequest` and its kin.
        """
        request, job = self.request, self.job
        upscaler = find_upscaler(request.hr_upscaler, upscalers, self.options)
        sampler, scheduler = self._sampler()
        if request.denoising_strength is None:
            raise BadRequest("denoising_strength: null; with enable_hr it must be a number")
        count = len(job.prompts)
        return HiresPass(
            upscaler=upscaler,
            size=self.size.size,
            surplus=self.size.surplus,
            denoising_strength=request.denoising_strength,
            steps=request.hr_second_pass_steps or job.steps,
            sampler=sampler,
            scheduler=scheduler,
            prompts=(texts[0],) * count,
            negative_prompts=(texts[1],) * count,
            checkpoint=self.model.file if self.model else job.checkpoint,
            vae=self.model.vae if self.model else job.vae,
            first_picture=first_picture,
            uses_first_networks=self.model is None
            and self.options.flag("hires_fix_use_firstpass_conds"),
            keeps_first=self.options.flag("save_images_before_highres_fix"),
        )

    def keys(self, hires: HiresPass) -> dict[str, Any]:
        """The infotext keys of a second pass, in order; null where drawing or a picture tells."""
        request = self.request
        keys: dict[str, Any] = {"Denoising strength": hires.denoising_strength}
        if self.model is not None:
            keys["Hires checkpoint"] = self.model.checkpoint.short_title
        if hires.sampler.name != self.job.sampler.name:
            keys["Hires sampler"] = hires.sampler.name
        keys |= {"Hires prompt": None, "Hires negative prompt": None, "Hires schedule type": None}
        x, y = _asked_size(request, self.options)
        keys |= {"Hires resize": f"{x}x{y}"} if x or y else {"Hires upscale": _scale(request)}
        if request.hr_second_pass_steps:
            keys["Hires steps"] = request.hr_second_pass_steps
        if request.hr_upscaler is not None:
            keys["Hires upscaler"] = upscaler_name(hires.upscaler)
        return keys

    def _sampler(self) -> tuple[SamplerInfo, str]:
        name, scheduler = self.request.hr_sampler_name, self.request.hr_scheduler
        name = self.job.sampler.name if name in (None, "", _SAME_SAMPLER) else name
        scheduler = self.job.scheduler if scheduler in (None, "", _SAME_SCHEDULER) else scheduler
        try:
            return resolve(name, scheduler)
        except UnknownSampler:
            near = near_names(name, [sampler.name for sampler in SAMPLERS])
            raise UnknownSampler(f"bad sampler name: {name}; there are {near}") from None


def names_checkpoint(request: Txt2ImgRequest) -> str | None:
    """The checkpoint named for the second pass alone."""
    name = request.hr_checkpoint_name
    return None if not name or name == _SAME_CHECKPOINT else name


def find_upscaler(
    name: str | None, upscalers: Upscalers, options: Options
) -> LatentMode | Upscaler:
    """What enlarges the first pass: a latent mode, the first for null, or an upscaler."""
    if name is None:
        return LATENT_MODES[0]
    if (mode := LATENT_MODE_BY_NAME.get(name)) is not None:
        return mode
    try:
        return upscalers.find(name, options)
    except UnknownName as error:
        modes = near_names(name, LATENT_MODE_BY_NAME)
        raise UnknownName(f"{error.detail}; latent modes: {modes}") from None


def upscaler_name(upscaler: LatentMode | Upscaler) -> str:
    """What infotext calls what enlarges."""
    named = (LatentMode, ModelUpscaler)
    return upscaler.name if isinstance(upscaler, named) else upscaler.value


def hires_texts(job: Job, index: int) -> dict[str, str]:
    """The infotext keys of a picture's own second-pass texts, where they differ from the first."""
    if job.hires is None:
        return {}
    texts = {
        "Hires prompt": (job.hires.prompts[index], job.prompts[index]),
        "Hires negative prompt": (job.hires.negative_prompts[index], job.negative_prompts[index]),
    }
    return {key: second for key, (second, first) in texts.items() if second != first}
