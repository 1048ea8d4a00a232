"""Pictures that wait for a description; one at a time is looked at, on the CPU."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from PIL.Image import Image

from sdapi.errors import Missing, QueueFull, TimedOut
from sdapi.options import Options

#: what is to be seen in a picture; blocks, always in the same thread
Describe = Callable[[Image, Options], str]
_MOST_WAITING: Final = 32
_TIMEOUT_S: Final = 300.0


class Interrogators:
    """The interrogators of this server by the names that requests have. Belongs to the event loop.

    A description takes seconds to a minute: more pictures than `limit` are not let in, and whoever
    has waited for `timeout_s` is told so.
    """

    def __init__(
        self,
        models: Mapping[str, Describe],
        *,
        limit: int = _MOST_WAITING,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._models = models
        self._limit = limit
        self._timeout_s = timeout_s
        self._open = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sdapi-interrogate")

    async def describe(self, image: Image, model: str, options: Options) -> str:
        """What is to be seen in a picture.

        Raises `Missing` for an unknown model, `QueueFull`, or what `describe_begun` does.
        """
        if model not in self._models:
            raise Missing("Model not found")
        if self._open >= self._limit:
            raise QueueFull(f"{self._open} pictures wait for a description already; try later")
        return await self.describe_begun(image, model, options)

    async def describe_begun(self, image: Image, model: str, options: Options) -> str:
        """The same for a request that has drawn already: it is not refused half-way.

        Raises `TimedOut`, or what the model does: `NoModel` that names the file which is not there.
        """
        self._open += 1
        try:
            work = self._thread.submit(self._models[model], image, options)
            # Who goes away while waiting gives up the place; a thread at work cannot be stopped.
            return await asyncio.wait_for(asyncio.wrap_future(work), self._timeout_s)
        except TimeoutError:
            raise TimedOut(f"no description within {self._timeout_s:g} s; try later") from None
        finally:
            self._open -= 1

    def close(self) -> None:
        """Give up what has not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)
