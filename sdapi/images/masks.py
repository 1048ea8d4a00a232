"""Inpainting masks: grey pictures, white where the picture is drawn anew.

Contract: webui-generation 10.2 and 10.7.
"""

from typing import Final, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from sdapi.errors import BadRequest
from sdapi.images.resize import CONTAIN, COVER, Upscale, resize_image

_OPAQUE: Final = (255, 255)
_BLACK_OR_WHITE: Final = [255 if value > 128 else 0 for value in range(256)]
_TWICE: Final = [min(2 * value, 255) for value in range(256)]


class Box(NamedTuple):
    """A part of a picture in pixels; `right` and `lower` are outside of it."""

    left: int
    upper: int
    right: int
    lower: int

    @property
    def size(self) -> tuple[int, int]:
        return self.right - self.left, self.lower - self.upper


def mask_from(image: Image.Image, *, rounds: bool) -> Image.Image:
    """The mask that a caller's picture means: its alpha where it has any, else its brightness.

    `rounds` makes an alpha mask black and white; brightness is never rounded here.
    """
    if image.mode != "RGBA" or image.getchannel("A").getextrema() == _OPAQUE:
        return image.convert("L")
    alpha = image.getchannel("A")
    return alpha.point(_BLACK_OR_WHITE) if rounds else alpha


def invert_mask(mask: Image.Image) -> Image.Image:
    """White where it was black."""
    return ImageChops.invert(mask)


def white_around(size: tuple[int, int], kept: Box) -> Image.Image:
    """A white mask of a size with a black box, whose corners all belong to it.

    Raises `BadRequest` where the corners cross.
    """
    if kept.right < kept.left or kept.lower < kept.upper:
        raise BadRequest(
            f"x1 must be greater than or equal to x0: nothing is kept of a picture of "
            f"{size[0]}x{size[1]} when both its edges are blurred that far; less mask blur or more "
            "pixels would do"
        )
    mask = Image.new("L", size, 255)
    ImageDraw.Draw(mask).rectangle(kept, fill=0)
    return mask


def blur_width(sigma: int) -> int:
    """The pixels that a mask's blur looks at along its axis."""
    return 2 * int(2.5 * sigma + 0.5) + 1


def blur_mask(mask: Image.Image, sigma_x: int, sigma_y: int) -> Image.Image:
    """Gaussian blur of each axis by itself, in eight bits, along x first; 0 or less: none."""
    import cv2  # here, so that a server starts without it

    pixels = np.asarray(mask)
    if sigma_x > 0:
        pixels = cv2.GaussianBlur(pixels, (blur_width(sigma_x), 1), sigma_x)
    if sigma_y > 0:
        pixels = cv2.GaussianBlur(pixels, (1, blur_width(sigma_y)), sigma_y)
    return Image.fromarray(pixels)


def masked_box(mask: Image.Image, padding: int) -> Box | None:
    """The box around everything that is not black, wider by `padding` within the picture.

    None when the mask is black. A negative padding can leave a box without content.
    """
    found = mask.getbbox()
    if found is None:
        return None
    left, upper, right, lower = found
    return Box(
        max(left - padding, 0),
        max(upper - padding, 0),
        min(right + padding, mask.width),
        min(lower + padding, mask.height),
    )


def widen_to_aspect(box: Box, aspect: tuple[int, int], bounds: tuple[int, int]) -> Box:
    """The box grown along one axis to the aspect ratio of a size, as far as `bounds` allow."""
    (width, height), ratio = box.size, aspect[0] / aspect[1]
    if width / height > ratio:
        upper, lower = _grow(box.upper, box.lower, int(width / ratio - height), bounds[1])
        return box._replace(upper=upper, lower=lower)
    left, right = _grow(box.left, box.right, int(height * ratio - width), bounds[0])
    return box._replace(left=left, right=right)


def _grow(low: int, high: int, extra: int, limit: int) -> tuple[int, int]:
    """A stretch grown evenly, an odd pixel at its end, then moved inside 0…limit and cut off."""
    low, high = low - extra // 2, high + extra - extra // 2
    if high > limit:
        low, high = low - (high - limit), limit
    if low < 0:
        low, high = 0, high - low
    return low, min(high, limit)


def strengthen(mask: Image.Image) -> Image.Image:
    """Twice as white: what half of the blurred edge covers belongs to the mask wholly."""
    return mask.point(_TWICE)


def kept_part(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture as RGBa (alpha-multiplied), transparent where the mask of its size is white."""
    part = Image.new("RGBa", image.size)
    part.paste(image.convert("RGBA").convert("RGBa"), mask=invert_mask(mask))
    return part


def masked_part(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture as RGBA, transparent where the mask is black; the mask is brought to its size."""
    fitting = resize_image(mask, CONTAIN, image.size).convert("L")
    drawn = image.convert("RGBA").convert("RGBa")
    return Image.composite(drawn, Image.new("RGBa", image.size), fitting).convert("RGBA")


def put_back(
    image: Image.Image, size: tuple[int, int], box: Box, upscale: Upscale | None = None
) -> Image.Image:
    """A transparent RGBA picture of a size with `image` covering a box of it."""
    whole = Image.new("RGBA", size)
    whole.paste(resize_image(image, COVER, box.size, upscale), (box.left, box.upper))
    return whole


def lay_over(image: Image.Image, overlay: Image.Image) -> Image.Image:
    """RGB: `overlay` (RGBA) over `image`, both from their upper left corner, at the size of
    `image`."""
    composed = image.convert("RGBA")
    common = overlay.crop((0, 0, *composed.size)) if overlay.size != composed.size else overlay
    composed.alpha_composite(common)
    return composed.convert("RGB")
