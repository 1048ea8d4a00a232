"""Small pictures of what a running job has so far."""

import threading
from dataclasses import dataclass, field

from PIL import Image

from sdapi import images
from sdapi.options import Options
from sdapi.services.jobs.tasks import Task


@dataclass(slots=True)
class Previews:
    """Approximates the running job's latent, at most once every few steps."""

    #: guards the cached preview
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _key: tuple[str, int, int] | None = None
    _encoded: str | None = None

    def current(self, task: Task, options: Options) -> str | None:
        """The preview of a task in base64; None when there is none or previews are off.

        Blocks for milliseconds: call it in a thread.
        """
        if not options.flag("live_previews_enable"):
            return None
        every = options.integer("show_progress_every_n_steps")
        if every <= 0:
            return None
        latent = task.monitor.latent
        if latent is None:
            return None
        step = task.monitor.sampling_step
        with self._lock:
            key = (task.id, task.monitor.job_no, step // every)
            if key != self._key:
                self._key, self._encoded = key, None
            if self._encoded is None:
                from sdapi.engine.latents.preview import approximate

                pictures = approximate(latent)
                if not options.flag("show_progress_grid"):
                    pictures = pictures[:1]
                self._encoded = _encode(pictures, options)
            return self._encoded


def _encode(pictures: list[Image.Image], options: Options) -> str:
    picture = pictures[0] if len(pictures) == 1 else images.make_grid(pictures)
    fmt = options.text("samples_format") or "png"
    return images.to_base64(images.encode(picture, fmt, None, options))
