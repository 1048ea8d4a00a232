"""`POST /controlnet/detect`: preprocessors on their own (contract: controlnet-api 12)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import numpy as np
from PIL import Image

from sdapi.engine.control.unit import Pixels
from sdapi.errors import BadImage, BadRequest, SDAPIError
from sdapi.extensions.controlnet.pictures import on_white
from sdapi.extensions.controlnet.preparing import shown_map
from sdapi.extensions.controlnet.preprocessors import DetectedMap, Mask, Preprocessor, find
from sdapi.images import encode_png, to_base64

if TYPE_CHECKING:
    from sdapi.services.container import Services

#: they work beside the text, or choose another module: nothing to show
_UNSUPPORTED: Final = {
    "clip_vision", "revision_clipvision", "revision_ignore_prompt", "ip-adapter-auto",
}  # fmt: skip
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


async def detect_maps(asked: Detection, services: "Services") -> dict[str, Any]:
    """The answer: maps in base64, and poses where people were looked for.

    Raises `BadRequest` and its kin.
    """
    module = _checked(asked)
    pictures: list[Image.Image] = []
    for name, texts in (
        ("controlnet_input_images", asked.images),
        ("controlnet_masks", asked.masks),
    ):
        for i, text in enumerate(texts):
            pictures.append(await _load(text, f"{name}.{i}", services))
    images, masks = pictures[: len(asked.images)], pictures[len(asked.images) :]

    def work() -> dict[str, Any]:
        found = [
            module.run(
                _joined(module, image, masks[i] if i < len(masks) else None, i),
                resolution=asked.resolution,
                threshold_a=asked.threshold_a,
                threshold_b=asked.threshold_b,
                annotators=services.annotators,
            )
            for i, image in enumerate(images)
        ]
        return _answer(module, found)

    return await anyio.to_thread.run_sync(work)


def _checked(asked: Detection) -> Preprocessor:
    try:
        module = find(asked.module)
    except SDAPIError as error:
        raise BadRequest(f"Module not available: {error.detail}") from error
    if module.name in _UNSUPPORTED:
        raise BadRequest(f"Module not supported: {asked.module}")
    if not asked.images:
        raise BadRequest("No image selected")
    if len(asked.images) > _MOST_PICTURES:
        raise BadRequest(f"controlnet_input_images: at most {_MOST_PICTURES} pictures at once")
    if module.mask is Mask.REQUIRED and len(asked.masks) != len(asked.images):
        raise BadRequest(f"Preprocessor {asked.module} requires `controlnet_masks` param.")
    return module


async def _load(text: str, place: str, services: "Services") -> Image.Image:
    try:
        return await services.images.load(text, services.options.current, field=place)
    except BadImage as error:
        raise BadImage(f"{place}: {error.detail}") from error


def _joined(
    module: Preprocessor, image: Image.Image, mask: Image.Image | None, number: int
) -> Pixels:
    """A picture with its mask as fourth channel, where the module looks at one."""
    pixels = on_white(image)
    if module.mask is not Mask.IGNORED and mask is not None:
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
