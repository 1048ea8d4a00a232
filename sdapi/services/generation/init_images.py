"""img2img's input pictures: from base64, data URIs and URLs to RGB at the size of the job."""

import anyio.to_thread
from PIL import Image, ImageColor

from sdapi.errors import BadImage, BadRequest, BadUrl, Missing
from sdapi.images import decode_bytes, decode_image, resize_image
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.fetch import Fetcher
from sdapi.services.generation.job_builder import LATENT_RESIZE

_FETCH_TIMEOUT_S = 30.0
_FETCH_MAX_BYTES = 64 << 20
_RESIZE_MODES = (0, 1, 2, LATENT_RESIZE)


class ImageLoader:
    """Turns what callers send for a picture into one."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def load(self, text: str | Image.Image, options: Options, *, field: str) -> Image.Image:
        """The picture in a base64 text or data URI, or behind an http(s) URL.

        A script may put a picture itself where requests have texts. Raises `BadImage` or `BadUrl`;
        `field` names the place in the request for what a URL holds.
        """
        if isinstance(text, Image.Image):
            return text
        if not _is_http(text):
            return await anyio.to_thread.run_sync(decode_image, text)
        if not options.flag("api_enable_requests"):
            raise BadUrl("Requests not allowed")
        data = await self._fetcher.get(
            text,
            max_bytes=_FETCH_MAX_BYTES,
            timeout_s=_FETCH_TIMEOUT_S,
            user_agent=options.text("api_useragent"),
        )
        try:
            return await anyio.to_thread.run_sync(decode_bytes, data)
        except BadImage as error:
            raise BadImage(f"Invalid image url: {field} holds no picture ({error})") from error

    async def init_images(
        self, request: Img2ImgRequest, image_link: str | None, options: Options
    ) -> tuple[Image.Image, ...]:
        """The init images of a request, RGB, at its size; `image_link` stands for the first.

        Raises `Missing` (404 `Init image not found`) without any.
        """
        texts = list(request.init_images or [])
        if image_link and not _is_http(image_link):
            raise BadUrl(f"image_link: {image_link[:200]!r} is no http or https URL")
        if image_link:
            texts[:1] = [image_link]
        elif request.init_images is None:
            raise Missing("Init image not found")
        if not texts:
            raise BadRequest("init_images: the list is empty; it needs at least one picture")
        if request.resize_mode not in _RESIZE_MODES:
            raise BadRequest(f"resize_mode: {request.resize_mode} is unknown; there are 0, 1, 2, 3")
        images = [
            await self.load(
                _source(text), options, field="image_link" if image_link else "init_images"
            )
            for text in texts
        ]
        return tuple(
            [await anyio.to_thread.run_sync(_prepare, i, request, options) for i in images]
        )


def _source(value: object) -> str | Image.Image:
    return value if isinstance(value, Image.Image) else str(value)


def _is_http(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _prepare(image: Image.Image, request: Img2ImgRequest, options: Options) -> Image.Image:
    image = _flatten(image, options.text("img2img_background_color"))
    if request.resize_mode == LATENT_RESIZE:
        # Its latents are resized instead; the VAE takes multiples of 8.
        width, height = (max(side // 8 * 8, 8) for side in image.size)
        return image.crop((0, 0, width, height))
    size = (max((request.width or 0) // 8 * 8, 8), max((request.height or 0) // 8 * 8, 8))
    asked = (request.width or size[0], request.height or size[1])
    resized = resize_image(image, int(request.resize_mode or 0), asked)
    return resized if resized.size == size else resized.crop((0, 0, *size))


def _flatten(image: Image.Image, background: str) -> Image.Image:
    """RGB; transparency shows the background colour."""
    if image.mode == "RGB":
        return image
    rgba = image.convert("RGBA")
    try:
        colour = ImageColor.getcolor(background, "RGBA")
    except ValueError:
        raise BadRequest(f"img2img_background_color: {background!r} is no colour") from None
    return Image.alpha_composite(Image.new("RGBA", rgba.size, colour), rgba).convert("RGB")
