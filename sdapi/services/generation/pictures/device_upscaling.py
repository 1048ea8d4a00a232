"""Models that enlarge img2img's pictures: on a device, while the request is prepared off it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import anyio.from_thread
from PIL.Image import Image

from sdapi.engine.jobs.extras_job import Enlargement, ExtrasJob
from sdapi.engine.jobs.job import Result
from sdapi.engine.upscaling.upscaler import ModelUpscaler, Upscaler
from sdapi.images import Upscale
from sdapi.services.jobs.tasks import Task, TaskRegistry


@dataclass(frozen=True, slots=True)
class DeviceUpscaling:
    """Runs upscalers as inner jobs of a task, in whose queue they wait like any other."""

    tasks: TaskRegistry
    #: queues a task that has its job, and waits for the result
    drawn: Callable[[Task], Awaitable[Result]]
    #: ends after its inner jobs, see `TaskRegistry.end`
    parent: Task

    def function_of(self, upscaler: ModelUpscaler) -> Upscale:
        """The upscaler as a function for a worker thread of anyio's, which it blocks.

        It raises `QueueFull`, `TaskCancelled`, or what the engine does.
        """
        return partial(_in_thread, self, upscaler)

    async def enlarged(self, upscaler: Upscaler, image: Image, scale: float) -> Image:
        """One picture enlarged; as it is when the task is interrupted before its turn."""
        inner = self.tasks.create_inner(self.parent, counts=False)
        inner.job = ExtrasJob(self.parent.id, (image,), ("",), Enlargement(upscaler, factor=scale))
        result = await self.drawn(inner)
        return result.images[0].image if result.images else image


def _in_thread(
    upscaling: DeviceUpscaling, upscaler: ModelUpscaler, image: Image, scale: float
) -> Image:
    return anyio.from_thread.run(upscaling.enlarged, upscaler, image, scale)
