"""img2img's input pictures: from base64, data URIs and URLs."""

from typing import cast

import anyio.to_thread
from PIL import Image

from sdapi.errors import BadImage, BadRequest, BadUrl, Missing
from sdapi.images import decode_bytes, decode_image
from sdapi.object_url import is_object_url
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.fetching.fetcher import Fetcher, without_secrets
from sdapi.services.generation.drafting.hires_request import first_size
from sdapi.services.generation.pictures.img2img import InitInputs, flatten
from sdapi.services.storage.storage import Storage

_FETCH_TIMEOUT_S = 30.0
_FETCH_MAX_BYTES = 64 << 20
_RESIZE_MODES = (0, 1, 2, 3)
#: of all init images of a request
_MAX_PIXELS = 400_000_000


class ImageLoader:
    """Turns what callers send for a picture into one."""

    def __init__(self, fetcher: Fetcher, storage: Storage | None = None) -> None:
        self._fetcher = fetcher
        self._storage = storage

    async def load(self, text: str | Image.Image, options: Options, *, field: str) -> Image.Image:
        """The picture in a base64 text or data URI, or behind an http(s) or object-store URL.

        A script may put a picture itself where requests have texts. Raises `BadImage`, `BadUrl`,
        or what `Storage.read` does; `field` is the place in the request, which errors tell.
        """
        if isinstance(text, Image.Image):
            return text
        if not is_url(text):
            try:
                return await anyio.to_thread.run_sync(decode_image, text)
            except BadImage as error:
                raise BadImage(error.detail, place=field) from error
        data = await self._fetched(text, options, field)
        try:
            return await anyio.to_thread.run_sync(decode_bytes, data)
        except BadImage as error:
            shown = f"{field} {without_secrets(text)}"
            raise BadImage(f"Invalid image url: {shown} holds no picture ({error})") from error

    async def _fetched(self, url: str, options: Options, field: str) -> bytes:
        if is_object_url(url) and self._storage is not None:
            return await self._storage.read(
                url, field=field, max_bytes=_FETCH_MAX_BYTES, timeout_s=_FETCH_TIMEOUT_S
            )
        if not options.flag("api_enable_requests"):
            raise BadUrl("Requests not allowed", place=field)
        return await self._fetcher.get(
            url,
            max_bytes=_FETCH_MAX_BYTES,
            timeout_s=_FETCH_TIMEOUT_S,
            user_agent=options.text("api_useragent"),
        )

    async def inputs(
        self, request: Img2ImgRequest, image_link: str | None, options: Options
    ) -> InitInputs:
        """The pictures of a request, decoded; `image_link` stands for the first init image.

        Raises `Missing` (404 `Init image not found`) without any.
        """
        texts = list(request.init_images or [])
        if image_link and not is_url(image_link):
            raise BadUrl(f"image_link: {image_link[:200]!r} is no http, https or oss URL")
        if image_link:
            texts[:1] = [image_link]
        elif request.init_images is None:
            raise Missing("Init image not found", place="init_images")
        if not texts:
            raise BadRequest("init_images: the list is empty; it needs at least one picture")
        if request.resize_mode not in _RESIZE_MODES:
            raise BadRequest(f"resize_mode: {request.resize_mode} is unknown; there are 0, 1, 2, 3")
        check_init_count(len(texts), request)
        mask = await self.load(request.mask, options, field="mask") if request.mask else None
        images: list[Image.Image] = []
        for index, text in enumerate(texts):
            field = "image_link" if image_link and index == 0 else f"init_images.{index}"
            images.append(await self.load(_source(text), options, field=field))
            if sum(image.width * image.height for image in images) > _MAX_PIXELS:
                raise BadRequest(
                    f"init_images: more than {_MAX_PIXELS // 1_000_000} megapixels in all"
                )
        latent_mask = cast("object", request.latent_mask)
        is_picture = isinstance(latent_mask, Image.Image)
        return InitInputs(tuple(images), mask, latent_mask=latent_mask if is_picture else None)

    async def first_picture(self, request: Txt2ImgRequest, options: Options) -> Image.Image:
        """`firstpass_image`: what stands for the first pass of hires fix, RGB, of its size.

        Raises `BadImage`, `BadUrl` or `BadRequest`.
        """
        image = await self.load(str(request.firstpass_image), options, field="firstpass_image")
        size = first_size(request, options)
        if image.size != size:
            raise BadRequest(
                f"firstpass_image: {image.width}x{image.height}, while the first pass is "
                f"{size[0]}x{size[1]}"
            )
        return flatten(image, options.text("img2img_background_color"))


def check_init_count(count: int, request: Img2ImgRequest) -> None:
    """Raise `BadRequest` for more init images than a batch has."""
    batch_size = 1 if request.batch_size is None else request.batch_size
    if count > batch_size:
        raise BadRequest(f"bad number of images passed: {count}; expecting {batch_size} or less")


def _source(value: object) -> str | Image.Image:
    return value if isinstance(value, Image.Image) else str(value)


def is_url(text: str) -> bool:
    """Whether a text names a picture by http, https or an object store, and is none itself."""
    return text[:8].lower().startswith(("http://", "https://")) or is_object_url(text[:16])
