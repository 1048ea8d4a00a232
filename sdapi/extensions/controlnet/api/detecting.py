"""`POST /controlnet/detect`: preprocessors on their own (contract: controlnet-api 12)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import numpy as np
from PIL import Image

from sdapi.engine.control.unit import Pixels
from sdapi.errors import BadImage, BadRequest, UnknownName, near_names
from sdapi.extensions.controlnet.api.detection_limits import DetectionLimits
from sdapi.extensions.controlnet.maps.shown import shown_map
from sdapi.extensions.controlnet.preprocessors import (
    DetectedMap,
    Mask,
    Preprocessor,
    find,
    module_list,
)
from sdapi.extensions.controlnet.units.pictures import on_white
from sdapi.extensions.controlnet.units.pixel_budget import PixelBudget
from sdapi.images import encode_png, to_base64

if TYPE_CHECKING:
    from sdapi.services.container import Services

#: chooses another module by the model, which is not known here
_AUTO: Final = "ip-adapter-auto"
_MOST_PICTURES: Final = 100


@dataclass(frozen=True, slots=True)
class Detection:
    """What a request asks for, as it was sent."""

    module: str
    images: Sequence[str]
    masks: Sequence[str]
    resolution: int
    threshold_a: float
    threshold_b: float


async def detect_maps(
    asked: Detection, services: "Services", limits: DetectionLimits
) -> dict[str, Any]:
    """The answer: maps in base64, and poses where people were looked for.

    It is worked out in threads of its own, so that those of all other requests stay free. Raises
    `BadRequest` and its kin, `QueueFull` when too many are here.
    """
    module = _checked(asked)
    with limits.place():
        return await _detected(module, asked, services, limits.threads)


async def _detected(
    module: Preprocessor,
    asked: Detection,
    services: "Services",
    threads: anyio.CapacityLimiter,
) -> dict[str, Any]:
    budget = PixelBudget()
    images = await _load(asked.images, "controlnet_input_images", services, budget)
    sent_masks = () if module.mask is Mask.IGNORED else asked.masks
    masks = await _load(sent_masks, "controlnet_masks", services, budget)

    def work() -> dict[str, Any]:
        found = [
            module.run(
                _joined(image, masks[i] if i < len(masks) else None, i),
                resolution=asked.resolution,
                threshold_a=asked.threshold_a,
                threshold_b=asked.threshold_b,
                annotators=services.annotators,
            )
            for i, image in enumerate(images)
        ]
        return _answer(module, found)

    return await anyio.to_thread.run_sync(work, limiter=threads)


async def _load(
    texts: Sequence[str], name: str, services: "Services", budget: PixelBudget
) -> list[Image.Image]:
    images = list[Image.Image]()
    for i, text in enumerate(texts):
        place = f"{name}.{i}"
        try:
            image = await services.images.load(text, services.options.current, field=place)
        except BadImage as error:
            raise BadImage(error.detail, place=place) from error
        budget.take(image.size, place)
        images.append(image)
    return images


def _checked(asked: Detection) -> Preprocessor:
    try:
        module = find(asked.module)
    except UnknownName as error:
        near = near_names(asked.module, module_list())
        place = f"controlnet_module {asked.module[:100]!r} (the nearest are {near})"
        raise BadRequest("Module not available", place=place) from error
    if module.name == _AUTO or not module.shows_something:
        place = f"controlnet_module {asked.module!r} (it makes no map, but what a model reads)"
        raise BadRequest("Module not supported", place=place)
    if not asked.images:
        raise BadRequest("No image selected", place="controlnet_input_images")
    for name, pictures in (
        ("controlnet_input_images", asked.images),
        ("controlnet_masks", asked.masks),
    ):
        if len(pictures) > _MOST_PICTURES:
            raise BadRequest(f"{name}: at most {_MOST_PICTURES} pictures at once")
    if module.mask is Mask.REQUIRED and len(asked.masks) != len(asked.images):
        raise BadRequest(f"Preprocessor {asked.module} requires `controlnet_masks` param.")
    return module


def _joined(image: Image.Image, mask: Image.Image | None, number: int) -> Pixels:
    """A picture with its mask, if it has one, as fourth channel."""
    pixels = on_white(image)
    if mask is not None:
        if mask.size != image.size:
            raise BadRequest(
                f"controlnet_masks.{number}: it has {mask.width}x{mask.height} pixels and its "
                f"picture {image.width}x{image.height}; both must have the same size"
            )
        pixels = np.dstack([pixels, on_white(mask)[:, :, 0]])
    return pixels


def _answer(module: Preprocessor, found: Sequence[DetectedMap]) -> dict[str, Any]:
    body: dict[str, Any] = {"info": "Success"}
    body["images"] = [to_base64(encode_png(shown_map(each.pixels), {})) for each in found]
    poses = [each.poses for each in found if each.poses is not None]
    if "openpose" in module.name and poses:
        body["poses"] = poses
    return body
