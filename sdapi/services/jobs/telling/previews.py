"""Small pictures of what a running job has so far."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from sdapi import images
from sdapi.engine.jobs.monitor import Preview, PreviewMethod
from sdapi.options import Options
from sdapi.services.jobs.tasks import Task

#: previews of one pass, at most
_MOST_OF_A_PASS = 100_000


@dataclass(slots=True)
class Previews:
    """The running job's latest prediction, at most once every few steps.

    Option `show_progress_type`: `Full` and `TAESD` are decoded by the device at the step after
    somebody asked; until then, and for the other types, the latent is approximated.
    """

    #: guards the cached preview
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _key: tuple[str, int, str, bool] | None = None
    _encoded: str | None = None

    @staticmethod
    def number(task: Task, options: Options) -> int | None:
        """Which preview of a task there is now, rising; None for none."""
        every = options.integer("show_progress_every_n_steps")
        monitor = task.monitor
        if not options.flag("live_previews_enable") or every <= 0 or monitor.latent is None:
            return None
        shown = _decoded(task, options)
        step = monitor.sampling_step if shown is None else shown.step
        return monitor.job_no * _MOST_OF_A_PASS + step // every

    def current(
        self, task: Task, options: Options, format_option: str = "samples_format"
    ) -> str | None:
        """The preview of a task in base64; None when there is none or previews are off.

        Blocks for milliseconds: call it in a thread.
        """
        number, latent = self.number(task, options), task.monitor.latent
        if number is None or latent is None:
            return None
        shown = _decoded(task, options)
        _ask(task, options, shown)
        with self._lock:
            key = (task.id, number, format_option, shown is not None)
            if key != self._key:
                self._key, self._encoded = key, None
            if self._encoded is None:
                from sdapi.engine.latents.preview import approximate

                pictures = approximate(latent) if shown is None else shown.images
                if not options.flag("show_progress_grid"):
                    pictures = pictures[:1]
                self._encoded = _encode(pictures, options, format_option)
            return self._encoded


def _method(options: Options) -> PreviewMethod | None:
    name = options.text("show_progress_type")
    return PreviewMethod(name) if name in set(PreviewMethod) else None


def _decoded(task: Task, options: Options) -> Preview | None:
    return None if _method(options) is None else task.monitor.preview


def _ask(task: Task, options: Options, shown: Preview | None) -> None:
    """Have the next step decoded, when the one that is shown is old enough."""
    every = options.integer("show_progress_every_n_steps")
    if shown is None or task.monitor.sampling_step - shown.step >= every:
        task.monitor.wanted_preview = _method(options)


def _encode(pictures: Sequence[Image.Image], options: Options, format_option: str) -> str:
    picture = pictures[0] if len(pictures) == 1 else images.make_grid(pictures)
    fmt = options.text(format_option) or "png"
    return images.to_base64(images.encode(picture, fmt, None, options))
