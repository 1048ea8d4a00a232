"""`POST /sdapi/v1/interrogate`: a description of a picture (contract: webui-api 11)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from PIL.Image import Image

from sdapi.errors import Missing, NoModel, NotBuilt
from sdapi.options import Options
from sdapi.settings import Settings

if TYPE_CHECKING:
    from sdapi.engine.interrogate.clip import ClipInterrogator

_DEEPDANBOORU = "torch_deepdanbooru/model-resnet_custom_v3.pt"


@dataclass(slots=True)
class Interrogators:
    """The interrogators of this server; one picture at a time, on the CPU."""

    settings: Settings
    _clip: "ClipInterrogator | None" = None
    _one_at_a_time: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))

    async def describe(self, image: Image, model: str, options: Options) -> str:
        """What is to be seen in a picture.

        Raises `Missing` for an unknown model, `NoModel` that names the file which is not there.
        """
        if model == "deepdanbooru":
            self._refuse_deepdanbooru()
        if model != "clip":
            raise Missing("Model not found")
        return await anyio.to_thread.run_sync(
            self._describe, image, options, limiter=self._one_at_a_time
        )

    def _describe(self, image: Image, options: Options) -> str:
        from sdapi.engine.interrogate.clip import (  # imports torch
            ClipInterrogator,
            InterrogateOptions,
        )

        if self._clip is None:
            models = self.settings.models_dir
            self._clip = ClipInterrogator(
                models / "BLIP", self.settings.clip_models_dir, models / "interrogate"
            )
        return self._clip.describe(
            image,
            InterrogateOptions(
                beams=options.integer("interrogate_clip_num_beams"),
                min_length=options.integer("interrogate_clip_min_length"),
                max_length=options.integer("interrogate_clip_max_length"),
                limit=options.integer("interrogate_clip_dict_limit"),
                skipped=frozenset(options.names("interrogate_clip_skip_categories")),
                shows_ranks=options.flag("interrogate_return_ranks"),
            ),
        )

    def _refuse_deepdanbooru(self) -> None:
        path = self.settings.models_dir / _DEEPDANBOORU
        if not path.is_file():
            raise NoModel(f"deepdanbooru needs the file {path}, which is not there")
        raise NotBuilt("deepdanbooru: reading its network is not available yet")
