"""From a request's mask to the part of the picture that is drawn anew.

Contract: webui-generation 10.2 and 10.4, webui-api 5.1.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from PIL import Image

from sdapi.errors import BadRequest
from sdapi.images import CONTAIN, resize_image
from sdapi.images.masks import (
    Box,
    blur_mask,
    blur_width,
    invert_mask,
    mask_from,
    masked_box,
    strengthen,
    widen_to_aspect,
)
from sdapi.schemas.generation import Img2ImgRequest

#: resize mode 3: pictures keep their size, their latents are resized
LATENT_RESIZE: Final = 3
_MAX_MASK_PIXELS: Final = 64_000_000
_MAX_BLUR: Final = 1000
#: pixels times the width of the blur; some ten seconds of work along each axis
_MAX_BLUR_WORK: Final = 8_000_000_000


class Fill(IntEnum):
    """`inpainting_fill`."""

    FILL = 0
    ORIGINAL = 1
    LATENT_NOISE = 2
    LATENT_NOTHING = 3


#: what infotexts call them; the original is not mentioned
_FILL_NAMES: Final = {
    Fill.FILL: "fill",
    Fill.LATENT_NOISE: "latent noise",
    Fill.LATENT_NOTHING: "latent nothing",
}


@dataclass(frozen=True, slots=True)
class Mask:
    """A request's mask, prepared; grey pictures, white where the picture is drawn anew."""

    #: of the job's size
    drawn: Image.Image
    #: what of the init picture a result hides, in the pixels of `box`'s picture or of the job
    hides: Image.Image
    #: the part of the init picture that is drawn; None draws the whole
    box: Box | None
    fill: Fill


@dataclass(frozen=True, slots=True)
class MaskPlan:
    """A mask with its infotext keys; no mask when there is nothing to draw anew by itself."""

    mask: Mask | None = None
    keys: dict[str, Any] = field(default_factory=dict[str, Any])


def plan_mask(
    image: Image.Image, request: Img2ImgRequest, size: tuple[int, int], *, rounds: bool
) -> MaskPlan:
    """Prepare the picture that a request gave as `mask` for a job of a size.

    Raises `BadRequest` for numbers that cannot work.
    """
    fill = _fill(request)
    inverts = _switch(request.inpainting_mask_invert, "inpainting_mask_invert")
    keys: dict[str, Any] = {}
    mask = mask_from(image, rounds=rounds)
    if inverts:
        mask = invert_mask(mask)
        keys["Mask mode"] = "Inpaint not masked"
    blur_x, blur_y = _blur(request, image.size)
    mask = blur_mask(mask, blur_x, blur_y)
    if blur_x > 0 or blur_y > 0:
        keys["Mask blur"] = blur_x if blur_x == blur_y else None
    if request.inpaint_full_res:
        planned = _only_masked(mask, request, size, fill, keys)
    else:
        planned = _whole_picture(mask, request, size, fill)
    if planned is not None and fill in _FILL_NAMES:
        keys["Masked content"] = _FILL_NAMES[fill]
    return MaskPlan(planned, keys)


def _whole_picture(
    mask: Image.Image, request: Img2ImgRequest, size: tuple[int, int], fill: Fill
) -> Mask:
    mode = CONTAIN if request.resize_mode == LATENT_RESIZE else int(request.resize_mode or 0)
    drawn = resize_image(mask, mode, size).convert("L")
    return Mask(drawn, strengthen(drawn), None, fill)


def _only_masked(
    mask: Image.Image,
    request: Img2ImgRequest,
    size: tuple[int, int],
    fill: Fill,
    keys: dict[str, Any],
) -> Mask | None:
    """None for a black mask: the whole picture is drawn, as without a mask."""
    padding = request.inpaint_full_res_padding
    if padding is None:
        raise BadRequest("inpaint_full_res_padding: null is not allowed here")
    box = masked_box(mask, padding)
    if box is None:
        return None
    if min(box.size) < 1:
        raise BadRequest(
            f"inpaint_full_res_padding: {padding} leaves nothing of the masked part of "
            f"{box.size[0] - 2 * padding}x{box.size[1] - 2 * padding}"
        )
    box = widen_to_aspect(box, size, mask.size)
    drawn = resize_image(mask.crop(box), CONTAIN, size).convert("L")
    keys |= {"Inpaint area": "Only masked", "Masked area padding": padding}
    return Mask(drawn, mask, box, fill)


def _fill(request: Img2ImgRequest) -> Fill:
    try:
        return Fill(request.inpainting_fill)
    except ValueError:
        raise BadRequest(
            f"inpainting_fill: {request.inpainting_fill} is unknown; there are 0 (fill), "
            "1 (original), 2 (latent noise), 3 (latent nothing)"
        ) from None


def _switch(value: int | None, name: str) -> bool:
    if value not in (None, 0, 1):
        raise BadRequest(f"{name}: {value} is unknown; there are 0 and 1")
    return bool(value)


def _blur(request: Img2ImgRequest, size: tuple[int, int]) -> tuple[int, int]:
    """The blur along x and y; refused where it would take minutes."""
    if size[0] * size[1] > _MAX_MASK_PIXELS:
        raise BadRequest(
            f"mask: {size[0]}x{size[1]} is more than {_MAX_MASK_PIXELS // 1_000_000} megapixels"
        )
    if request.mask_blur is not None:
        blur = request.mask_blur, request.mask_blur
    elif request.mask_blur_x is None or request.mask_blur_y is None:
        raise BadRequest("mask_blur_x, mask_blur_y: null is not allowed here")
    else:
        blur = request.mask_blur_x, request.mask_blur_y
    for value in blur:
        if value > _MAX_BLUR:
            raise BadRequest(f"mask_blur: {value} is too much; at most {_MAX_BLUR}")
        if value > 0 and size[0] * size[1] * blur_width(value) > _MAX_BLUR_WORK:
            raise BadRequest(f"mask_blur: {value} is too much for a mask of {size[0]}x{size[1]}")
    return blur
