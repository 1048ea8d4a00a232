"""What an upscaler does with a picture, by the rules of webui-api 9."""

import threading
from functools import partial

from PIL.Image import Image

from sdapi.engine.models.device_models import Models
from sdapi.engine.upscaling.upscaler import Filter, ModelUpscaler, Upscaler
from sdapi.images.resize import Step, Upscale, enlarge, lanczos_step, nearest_step


def upscale_with(models: Models, upscaler: Upscaler, stop: threading.Event) -> Upscale | None:
    """The upscaler as a function; None for the one named "None".

    The function raises `ModelUnusable`, or `BadRequest` for what grows too large. Once `stop` is
    set it returns what it has, at the size asked for.
    """
    if upscaler is Filter.NONE:
        return None
    if isinstance(upscaler, Filter):
        return partial(_enlarge, lanczos_step if upscaler is Filter.LANCZOS else nearest_step)
    return partial(_enlarge, partial(_run_model, models, upscaler, stop))


def _enlarge(step: Step, image: Image, scale: float) -> Image:
    return enlarge(image, scale, step)


def _run_model(
    models: Models, upscaler: ModelUpscaler, stop: threading.Event, image: Image, scale: float
) -> Image:
    """One run of a model, whose factor is its own."""
    with models.image_model(upscaler.file, prefers_half=upscaler.prefers_half) as model:
        return model.upscale(image, upscaler.tiles, stop)
