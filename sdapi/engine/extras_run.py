"""Runs a job on given pictures, one after the other."""

import time
from dataclasses import dataclass, field

from PIL import Image

from sdapi.engine.faces.restoring import restore_faces
from sdapi.engine.jobs.extras_job import Enlargement, ExtrasJob
from sdapi.engine.jobs.job import GeneratedImage, Result
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.models.device_models import Models
from sdapi.engine.upscaling.upscale import upscale_with
from sdapi.engine.upscaling.upscaler import Upscaler


@dataclass(slots=True)
class ExtrasRun:
    """A job while it runs. Made for one call of `run`."""

    models: Models
    job: ExtrasJob
    monitor: Monitor
    #: what could not be used, each said once
    warnings: dict[str, None] = field(default_factory=dict[str, None])

    def run(self) -> Result:
        """Fewer pictures than there were when the monitor says stop."""
        started = time.perf_counter()
        self.monitor.begin_job(len(self.job.images))
        images: list[GeneratedImage] = []
        for index, (image, name) in enumerate(zip(self.job.images, self.job.names, strict=True)):
            if self.monitor.interrupted.is_set():
                break
            self.monitor.text = name
            images.append(GeneratedImage(index, self._worked_on(image)))
            self.monitor.end_pass()
        return Result(
            images=tuple(images),
            extra={},
            warnings=tuple(self.warnings),
            interrupted=self.monitor.interrupted.is_set(),
            sample_s=time.perf_counter() - started,
        )

    def _worked_on(self, image: Image.Image) -> Image.Image:
        if self.job.enlargement is not None:
            image = self._enlarged(image, self.job.enlargement)
        for faces in self.job.faces:
            image, warnings = restore_faces(self.models, image, faces)
            self.warnings |= dict.fromkeys(warnings)
        return image

    def _enlarged(self, image: Image.Image, asked: Enlargement) -> Image.Image:
        made = self._by(asked.upscaler, image, asked)
        if asked.second is None or asked.second_share == 0:
            return made
        second = self._by(asked.second, image, asked)
        return Image.blend(made, second.convert(made.mode), asked.second_share)

    def _by(self, upscaler: Upscaler, image: Image.Image, asked: Enlargement) -> Image.Image:
        upscale = upscale_with(self.models, upscaler, self.monitor.interrupted)
        if upscale is not None:
            image = upscale(image, asked.factor_for(image.size))
        return _on_canvas(image, asked.size) if asked.crops else image


def _on_canvas(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of the picture at a size; what it does not reach is black."""
    canvas = Image.new("RGB", size)
    canvas.paste(image, (size[0] // 2 - image.width // 2, size[1] // 2 - image.height // 2))
    return canvas
