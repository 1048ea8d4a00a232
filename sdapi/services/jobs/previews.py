"""Small pictures of what a running job has so far."""

import threading
from dataclasses import dataclass, field

from PIL import Image

from sdapi import images
from sdapi.options import Options
from sdapi.services.jobs.tasks import Task

#: previews of one pass, at most
_MOST_OF_A_PASS = 100_000


@dataclass(slots=True)
class Previews:
    """Approximates the running job's latent, at most once every few steps."""

    #: guards the cached preview
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _key: tuple[str, int, str] | None = None
    _encoded: str | None = None

    @staticmethod
    def number(task: Task, options: Options) -> int | None:
        """Which preview of a task there is now, rising; None for none."""
        every = options.integer("show_progress_every_n_steps")
        if not options.flag("live_previews_enable") or every <= 0 or task.monitor.latent is None:
            return None
        return task.monitor.job_no * _MOST_OF_A_PASS + task.monitor.sampling_step // every

    def current(
        self, task: Task, options: Options, format_option: str = "samples_format"
    ) -> str | None:
        """The preview of a task in base64; None when there is none or previews are off.

        Blocks for milliseconds: call it in a thread.
        """
        number, latent = self.number(task, options), task.monitor.latent
        if number is None or latent is None:
            return None
        with self._lock:
            key = (task.id, number, format_option)
            if key != self._key:
                self._key, self._encoded = key, None
            if self._encoded is None:
                from sdapi.engine.latents.preview import approximate

                pictures = approximate(latent)
                if not options.flag("show_progress_grid"):
                    pictures = pictures[:1]
                self._encoded = _encode(pictures, options, format_option)
            return self._encoded


def _encode(pictures: list[Image.Image], options: Options, format_option: str) -> str:
    picture = pictures[0] if len(pictures) == 1 else images.make_grid(pictures)
    fmt = options.text(format_option) or "png"
    return images.to_base64(images.encode(picture, fmt, None, options))
