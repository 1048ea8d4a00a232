"""An img2img request's pictures -> what the engine draws from and how results are finished.

Contract: webui-generation 10.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from PIL import Image

from sdapi.engine.jobs.init_images import InitImages, InpaintMask, MaskedContent
from sdapi.engine.upscaling.upscaler import Filter, ModelUpscaler, Upscaler
from sdapi.errors import BadRequest, UnknownName
from sdapi.images import (
    CONTAIN,
    Upscale,
    check_cover,
    enlarge,
    lanczos_step,
    nearest_step,
    resize_image,
)
from sdapi.images.fill import fill_masked
from sdapi.images.named_colour import rgba
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.pictures.finish import Finish, Surroundings
from sdapi.services.generation.pictures.inpaint_mask import (
    LATENT_RESIZE,
    Fill,
    Mask,
    MaskPlan,
    plan_mask,
)
from sdapi.services.generation.pictures.soft_inpainting import SoftInpaintingArgs

_MAX_OWN_SIZE_PIXELS: Final = 16_000_000
_MAX_RESULT_PIXELS: Final = 64_000_000
#: pixels of all results of a request that have the init picture's size
_MAX_RESULTS_PIXELS: Final = 1_000_000_000
_UPSCALER: Final = "upscaler_for_img2img"
#: makes a function of a model that enlarges pictures
RunsModel = Callable[[ModelUpscaler], Upscale]
_STEPS: Final = {Filter.LANCZOS: lanczos_step, Filter.NEAREST: nearest_step}
_CONTENTS: Final = {
    Fill.LATENT_NOISE: MaskedContent.NOISE,
    Fill.LATENT_NOTHING: MaskedContent.NOTHING,
}


@dataclass(frozen=True, slots=True)
class InitInputs:
    """What a request gives img2img besides its fields: pictures as they were decoded."""

    images: tuple[Image.Image, ...]
    mask: Image.Image | None = None
    soft: SoftInpaintingArgs | None = None
    #: a script's, grey, for latents in place of `mask`
    latent_mask: Image.Image | None = None


@dataclass(frozen=True, slots=True)
class PreparedInit:
    """What a job starts from, how its pictures are finished, and what its infotext tells of it."""

    init: InitImages
    finish: Finish
    #: infotext keys
    keys: dict[str, Any]
    #: the pictures as they came, where option `save_init_img` asks for them
    originals: tuple[Image.Image, ...] = ()
    #: of the last one's pixels
    image_hash: str | None = None


def pixel_hash(image: Image.Image) -> str:
    """MD5 of a picture's pixels, the name of its file among the init images."""
    return hashlib.md5(image.tobytes(), usedforsecurity=False).hexdigest()


def prepare_init(
    inputs: InitInputs,
    request: Img2ImgRequest,
    options: Options,
    size: tuple[int, int],
    count: int,
    upscalers: Upscalers,
    runs_model: RunsModel,
) -> PreparedInit:
    """Bring pictures and mask to a job's size; `count` pictures will be drawn.

    `runs_model` is asked where an upscaler is a model. Raises `BadRequest` for what cannot work.
    """
    soft = inputs.soft if inputs.mask is not None else None
    rounds = bool(request.mask_round) and soft is None
    plan, latent_mask = MaskPlan(), inputs.latent_mask
    if inputs.mask is not None:
        plan = plan_mask(inputs.mask, request, size, rounds=rounds)
    upscale = _upscale(options, upscalers, runs_model)
    geometry = _Geometry(size, int(request.resize_mode or 0), plan.mask, upscale)
    geometry.check(inputs, count)
    background = options.text("img2img_background_color")
    flat = tuple(geometry.surrounding(flatten(image, background)) for image in inputs.images)
    images = tuple(geometry.drawn(picture, latent_mask) for picture in flat)
    init = InitImages(
        images,
        request.denoising_strength,
        latent_resize=geometry.keeps_size,
        noise_multiplier=_noise_multiplier(request, options),
        mask=_inpaint_mask(plan.mask, latent_mask, soft, rounds=rounds),
        image_cfg_scale=request.image_cfg_scale,
    )
    finish = geometry.finish(images, flat, options)
    keys = _keys(request, options, soft, plan)
    if not options.flag("save_init_img"):
        return PreparedInit(init, finish, keys)
    return PreparedInit(init, finish, keys, inputs.images, pixel_hash(inputs.images[-1]))


def _keys(
    request: Img2ImgRequest, options: Options, soft: SoftInpaintingArgs | None, plan: MaskPlan
) -> dict[str, Any]:
    """The infotext keys of a request's pictures and mask, in order."""
    keys: dict[str, Any] = {} if soft is None else soft.keys
    keys |= {"Denoising strength": request.denoising_strength, **plan.keys}
    if (method := options.text("sd_vae_encode_method")) != "Full":
        keys["VAE Encoder"] = method
    return keys


def _inpaint_mask(
    mask: Mask | None,
    latent_mask: Image.Image | None,
    soft: SoftInpaintingArgs | None,
    *,
    rounds: bool,
) -> InpaintMask | None:
    """What the engine is told of a mask."""
    if mask is None:
        return None
    content = _CONTENTS.get(mask.fill, MaskedContent.PICTURE)
    return InpaintMask(mask.drawn, rounds, latent_mask, content, soft.settings if soft else None)


@dataclass(frozen=True, slots=True)
class _Geometry:
    """How a request's pictures come to the size of its job."""

    size: tuple[int, int]
    mode: int
    mask: Mask | None
    upscale: Upscale | None

    @property
    def box(self) -> Any:
        return None if self.mask is None else self.mask.box

    @property
    def keeps_size(self) -> bool:
        """Resize mode 3: the latents are resized instead."""
        return self.mode == LATENT_RESIZE and self.box is None

    def check(self, inputs: InitInputs, count: int) -> None:
        """Refuse what would fail or take minutes, before it is begun."""
        sizes = {image.size for image in inputs.images}
        for width, height in sizes:
            if min(width, height) < 8 and self.keeps_size:
                raise BadRequest(f"init_images: {width}x{height} is too small for resize_mode 3")
        if self.keeps_size:
            if len(sizes) > 1:
                raise BadRequest("init_images: with resize_mode 3 all must have the same size")
            self._check_pixels(sizes, _MAX_OWN_SIZE_PIXELS, "resize_mode 3 encodes it as it is")
        if self.box is None:
            return
        assert inputs.mask is not None
        for size in sizes - {inputs.mask.size}:
            raise BadRequest(
                f"mask: it has {_by(inputs.mask.size)} pixels and an init image {_by(size)}; with "
                "inpaint_full_res both must have the same size"
            )
        self._check_pixels(sizes, _MAX_RESULT_PIXELS, "inpaint_full_res answers with its size")
        width, height = inputs.mask.size
        if width * height * count > _MAX_RESULTS_PIXELS:
            raise BadRequest(
                f"init_images: {count} results of {width}x{height} are more than "
                f"{_MAX_RESULTS_PIXELS // 1_000_000} megapixels; inpaint_full_res answers with the "
                "size of the init image"
            )
        check_cover(self.size, self.box.size)

    @staticmethod
    def _check_pixels(sizes: Iterable[tuple[int, int]], limit: int, why: str) -> None:
        for width, height in sizes:
            if width * height > limit:
                raise BadRequest(
                    f"init_images: {width}x{height} is more than {limit // 1_000_000} megapixels; "
                    f"{why}"
                )

    def surrounding(self, image: Image.Image) -> Image.Image:
        """The picture as results show what is around the mask."""
        if self.box is not None or self.keeps_size:
            return image
        return resize_image(image, self.mode, self.size, self.upscale)

    def drawn(self, picture: Image.Image, latent_mask: Image.Image | None) -> Image.Image:
        """What the engine starts from; `latent_mask` decides what is filled, where there is one."""
        if self.mask is None:
            return picture
        if self.mask.box is not None:
            picture = resize_image(picture.crop(self.mask.box), CONTAIN, self.size, self.upscale)
        if self.mask.fill is Fill.ORIGINAL:
            return picture
        return fill_masked(picture, _fitting(latent_mask or self.mask.drawn, picture.size))

    def _surroundings(self, flat: tuple[Image.Image, ...], *, shows: bool) -> Surroundings | None:
        """What results show around the part that is drawn anew."""
        if self.mask is None:
            return None
        return Surroundings(flat, _fitting(self.mask.hides, flat[0].size), self.mask.box, shows)

    def finish(
        self, images: tuple[Image.Image, ...], flat: tuple[Image.Image, ...], options: Options
    ) -> Finish:
        """What becomes of results; `images` are what the engine starts from."""
        return Finish(
            self.size,
            colours=images if options.flag("img2img_color_correction") else (),
            surroundings=self._surroundings(flat, shows=options.flag("overlay_inpaint")),
            upscale=self.upscale,
        )


def _fitting(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The mask at a picture's size, which differs from the job's in resize mode 3."""
    return mask if mask.size == size else resize_image(mask, CONTAIN, size).convert("L")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def find_upscaler(options: Options, upscalers: Upscalers) -> Upscaler | None:
    """The upscaler of option `upscaler_for_img2img`; raises `UnknownName` with the near ones."""
    name = options.text(_UPSCALER)
    if not name:
        return None
    try:
        return upscalers.find(name, options)
    except UnknownName as error:
        raise UnknownName(f"{_UPSCALER}: {error.detail}") from None


def _upscale(options: Options, upscalers: Upscalers, runs_model: RunsModel) -> Upscale | None:
    found = find_upscaler(options, upscalers)
    if isinstance(found, ModelUpscaler):
        return runs_model(found)
    step = None if found is None else _STEPS.get(found)
    return None if step is None else partial(enlarge, step=step)


def _noise_multiplier(request: Img2ImgRequest, options: Options) -> float:
    multiplier = request.initial_noise_multiplier
    return options.number("initial_noise_multiplier") if multiplier is None else multiplier


def flatten(image: Image.Image, background: str) -> Image.Image:
    """RGB; transparency shows the background colour."""
    if image.mode == "RGB":
        return image
    layer = image.convert("RGBA")
    colour = rgba(background, "img2img_background_color")
    return Image.alpha_composite(Image.new("RGBA", layer.size, colour), layer).convert("RGB")
