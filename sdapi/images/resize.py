"""The resize modes of img2img, on pixels."""

from collections.abc import Callable
from typing import Final

from PIL import Image

from sdapi.errors import BadImage

#: Enlarges a picture once, by about the factor given; the upscaler rules make the size exact.
Step = Callable[[Image.Image, float], Image.Image]
#: Enlarges a picture by the factor given, in steps of 8 pixels.
Upscale = Callable[[Image.Image, float], Image.Image]

STRETCH: Final = 0
COVER: Final = 1
CONTAIN: Final = 2
#: an upscaler that makes less than was asked for is run again, this often
_MAX_STEPS: Final = 3
#: pixels of a picture on its way to its size; a narrow strip that covers a square passes it
_LARGEST_STEP: Final = 64_000_000


def resize_to(
    image: Image.Image, size: tuple[int, int], filter: Image.Resampling = Image.Resampling.LANCZOS
) -> Image.Image:
    """The picture stretched to a size, width first.

    Two calls: Pillow chooses the order of its passes by cost, and the golden pictures were made
    width first.
    """
    width, height = size
    if image.mode == "RGBA" and filter is not Image.Resampling.NEAREST:
        # Colours count as much as they are opaque; once for both calls, or faint ones get lost.
        return resize_to(image.convert("RGBa"), size, filter).convert("RGBA")
    return image.resize((width, image.height), filter).resize((width, height), filter)


def lanczos_step(image: Image.Image, scale: float) -> Image.Image:
    """The upscaler "Lanczos"."""
    return resize_to(image, (int(image.width * scale), int(image.height * scale)))


def nearest_step(image: Image.Image, scale: float) -> Image.Image:
    """The upscaler "Nearest"."""
    size = (int(image.width * scale), int(image.height * scale))
    return resize_to(image, size, Image.Resampling.NEAREST)


def enlarge(image: Image.Image, scale: float, step: Step) -> Image.Image:
    """A picture enlarged by an upscaler to `scale` times its size, rounded down to multiples of 8.

    The upscaler runs until both sides are reached, and once at scale 1, since some models only
    clean up; Lanczos makes the size exact.
    """
    target = int(image.width * scale // 8 * 8), int(image.height * scale // 8 * 8)
    for i in range(_MAX_STEPS):
        is_reached = image.width >= target[0] and image.height >= target[1]
        if is_reached and (i > 0 or scale != 1):
            break
        before = image.size
        image = step(image, scale)
        if image.size == before:
            break
    return image if image.size == target else resize_to(image, target)


def resize_image(
    image: Image.Image, mode: int, size: tuple[int, int], upscale: Upscale | None = None
) -> Image.Image:
    """A picture at `size` by resize mode 0 (stretch), 1 (cover, cut off) or 2 (contain, edges
    drawn out).

    `upscale` is the upscaler of option `upscaler_for_img2img`, used where the picture has to grow.
    """
    if mode == STRETCH:
        return _resample(image, size, upscale)
    width, height = size
    scaled = _scaled_size(image.size, mode, size)
    picture = _resample(image, scaled, upscale)
    x, y = width // 2 - picture.width // 2, height // 2 - picture.height // 2
    canvas = Image.new("RGB", size)
    canvas.paste(picture, (x, y))
    if mode == CONTAIN:
        _draw_out_edges(canvas, picture, x, y)
    return canvas


def _scaled_size(image: tuple[int, int], mode: int, size: tuple[int, int]) -> tuple[int, int]:
    """The size that keeps a picture's ratio while it covers, or is contained in, another.

    Raises `BadImage` where that is out of proportion.
    """
    width, height = size
    by_width = (width, image[1] * width // image[0])
    by_height = (image[0] * height // image[1], height)
    wider = width / height > image[0] / image[1]
    scaled = by_width if wider == (mode == COVER) else by_height
    if scaled[0] * scaled[1] > _LARGEST_STEP:
        raise BadImage(
            f"a picture of {image[0]}x{image[1]} would grow to {scaled[0]}x{scaled[1]} on its way "
            f"to {width}x{height}"
        )
    return max(scaled[0], 1), max(scaled[1], 1)


def check_cover(image: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise `BadImage` where a picture of a size could not be brought to another by mode 1."""
    _scaled_size(image, COVER, size)


def _resample(image: Image.Image, size: tuple[int, int], upscale: Upscale | None) -> Image.Image:
    scale = max(size[0] / image.width, size[1] / image.height)
    if upscale is not None and image.mode != "L" and scale > 1:
        if image.width * image.height * scale**2 > _LARGEST_STEP:
            raise BadImage(
                f"upscaler_for_img2img: a picture of {image.width}x{image.height} would grow "
                f"{scale:.0f} times on its way to {size[0]}x{size[1]}"
            )
        image = upscale(image, scale)
        if image.size == size:
            return image
    return resize_to(image, size)


def _draw_out_edges(canvas: Image.Image, picture: Image.Image, x: int, y: int) -> None:
    """Fill the two empty bands by stretching the picture's first and last edge.

    The boxes are empty on purpose: the bicubic filter then looks at the border line itself, as the
    golden pictures were made, not at the middle of the outermost row or column.
    """
    width, height = canvas.size
    right, bottom = x + picture.width, y + picture.height
    if y > 0:
        canvas.paste(picture.resize((width, y), box=(0, 0, picture.width, 0)), (0, 0))
        if bottom < height:
            edge = (0, picture.height, picture.width, picture.height)
            canvas.paste(picture.resize((width, height - bottom), box=edge), (0, bottom))
    elif x > 0:
        canvas.paste(picture.resize((x, height), box=(0, 0, 0, picture.height)), (0, 0))
        if right < width:
            edge = (picture.width, 0, picture.width, picture.height)
            canvas.paste(picture.resize((width - right, height), box=edge), (right, 0))
