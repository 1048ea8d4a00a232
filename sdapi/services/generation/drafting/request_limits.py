"""What the numbers of a request may be; a server could not hold, or nobody would want, the rest."""

from typing import Any

from sdapi.errors import BadRequest, NotBuilt, near_names
from sdapi.images.named_colour import rgba
from sdapi.options import Options
from sdapi.schemas.generation import Txt2ImgRequest
from sdapi.services.generation.drafting import hires_request
from sdapi.services.scripts.script import GenerationRequest

#: No device there is can draw a larger picture; a bound for what a caller may ask.
_MAX_PIXELS = 64_000_000
_MAX_IMAGES = 1000
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


def check(request: GenerationRequest, options: Options) -> None:
    """Refuse what no job could be made of, whatever else the request says.

    Raises `NotBuilt` for an option that would act, were its feature here, else `BadRequest`.
    """
    for key, neutral in _TO_COME_OPTIONS.items():
        if options[key] is not None and options[key] not in neutral:
            raise NotBuilt(f"option {key}: {options[key]!r} is not available yet")
    # Fractions must be numbers that arithmetic survives; what they mean is not judged.
    for name in _FRACTIONS:
        value = getattr(request, name, None)
        if value is not None and not abs(value) <= _MAX_FRACTION:
            raise BadRequest(
                f"{name}: {value} is out of range; at most {_MAX_FRACTION:g} either way"
            )
    rgba(options.text("grid_background_color"), "grid_background_color")


def check_formats(options: Options) -> None:
    """Refuse file formats and sizes that saving would only fail on after drawing."""
    for key in ("samples_format", "grid_format"):
        if options.text(key).lower() not in _FILE_FORMATS:
            names = near_names(options.text(key), _FILE_FORMATS)
            raise BadRequest(f"{key}: {options.text(key)!r} is no file format; there are {names}")
    if options.integer("target_side_length") < 1:
        raise BadRequest("target_side_length: it must be at least 1")


def required(value: Any, name: str) -> Any:
    """A value that may be left out, and may not be null."""
    if value is None:
        raise BadRequest(f"{name}: null is not allowed here")
    return value


def picture_size(request: GenerationRequest, options: Options) -> tuple[int, int]:
    """(width, height) of the only pass, or of the first."""
    size, prefix = (required(request.width, "width"), required(request.height, "height")), ""
    if isinstance(request, Txt2ImgRequest):
        size = hires_request.first_size(request, options)
        prefix = "firstphase_" if hires_request.has_first_phase(request) else ""
    check_size(size, "the picture", prefix)
    return size


def check_size(size: tuple[int, int], what: str, prefix: str = "") -> None:
    """Refuse a picture that is too small or too large, under the name of what it is.

    `prefix` begins the names of its fields.
    """
    width, height = size
    names = f"{prefix}width", f"{prefix}height"
    for name, side in zip(names, size, strict=True):
        if side < 8:
            raise BadRequest(f"{name}: {side} is too small; {what} has at least 8 pixels a side")
    if width * height > _MAX_PIXELS:
        raise BadRequest(
            f"{', '.join(names)}: {width}x{height} is more than {_MAX_PIXELS // 1_000_000} "
            f"megapixels, the most for {what}"
        )


def counts(request: GenerationRequest) -> tuple[int, int]:
    """Pictures asked for in a batch, and batches; raises `BadRequest` for none and too many."""
    batch_size = required(request.batch_size, "batch_size")
    n_iter = required(request.n_iter, "n_iter")
    for name, number in (("batch_size", batch_size), ("n_iter", n_iter)):
        if number < 1:
            raise BadRequest(f"{name}: {number} draws nothing; it must be at least 1")
    if batch_size * n_iter > _MAX_IMAGES:
        raise BadRequest(
            f"batch_size, n_iter: {batch_size * n_iter} pictures in one request; "
            f"at most {_MAX_IMAGES}"
        )
    return batch_size, n_iter


def step_count(request: GenerationRequest) -> int:
    """The steps that the request asks for."""
    steps = required(request.steps, "steps")
    check_steps(steps, "steps")
    return steps


def check_steps(steps: int, name: str) -> None:
    """Refuse too few and too many, under the name of their field."""
    if steps < 1:
        raise BadRequest(f"{name}: {steps} is too few; it must be at least 1")
    if steps > _MAX_STEPS:
        raise BadRequest(f"{name}: {steps} is too many; at most {_MAX_STEPS}")


def seed_resize(request: GenerationRequest) -> tuple[int, int] | None:
    """The picture size (width, height) that the seeds were chosen for, if it is another."""
    width, height = request.seed_resize_from_w or 0, request.seed_resize_from_h or 0
    if width * height > _MAX_PIXELS:
        raise BadRequest(
            f"seed_resize_from_w, seed_resize_from_h: {width}x{height} is more than "
            f"{_MAX_PIXELS // 1_000_000} megapixels"
        )
    return (width, height) if width > 0 and height > 0 else None
