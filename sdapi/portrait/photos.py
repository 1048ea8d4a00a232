"""Photos that callers name by URL: fetched within limits, decoded to upright RGB."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import numpy as np
from PIL import Image

from sdapi.images.decode import decode_bytes
from sdapi.portrait.faces.face import Pixels
from sdapi.services.fetching.fetcher import Fetcher

MAX_PIXELS: Final = 64_000_000
MAX_BYTES: Final = 32 << 20
#: photos that one request may name
MAX_PHOTOS: Final = 50
FETCH_TIMEOUT_S: Final = 30.0
#: photos held in memory at a time, by everyone and by one request
_HELD: Final = 16
_HELD_BY_ONE: Final = 4
_WIDE_MODES: Final = ("I", "I;16", "I;16B", "I;16L")


class PhotoFetcher:
    """Fetches photos; the guard is `Fetcher`'s, the limits are these."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        #: hold it while a photo's bytes are in memory
        self.held = anyio.CapacityLimiter(_HELD)

    async def get(self, url: str) -> bytes:
        """The photo's file; raises BadUrl."""
        return await self._fetcher.get(url, max_bytes=MAX_BYTES, timeout_s=FETCH_TIMEOUT_S)

    async def each(self, urls: Sequence[str], look: Callable[[int, str], Awaitable[None]]) -> None:
        """Look at every photo, a few at a time; raises the first error that a look raises."""
        few = anyio.Semaphore(_HELD_BY_ONE)

        async def one(index: int, url: str) -> None:
            async with few, self.held:
                await look(index, url)

        try:
            async with anyio.create_task_group() as group:
                for index, url in enumerate(urls):
                    group.start_soon(one, index, url)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed


def decode_photo(data: bytes, enough_side: int | None = None) -> Pixels:
    """The photo as upright RGB bytes, transparency over white; of an animation the first frame.

    Raises BadImage. See `decode_bytes` for `enough_side`.
    """
    image = decode_bytes(data, pixel_limit=MAX_PIXELS, enough_side=enough_side)
    return np.ascontiguousarray(np.asarray(_rgb(image), np.uint8))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE_MODES:  # 16 bits a pixel, which Pillow would clip
        image = Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")
