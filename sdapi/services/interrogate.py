"""`POST /sdapi/v1/interrogate`: a description of a picture (contract: webui-api 11)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from PIL.Image import Image

from sdapi.errors import Missing, NoModel
from sdapi.options import Options
from sdapi.settings import Settings

if TYPE_CHECKING:
    from sdapi.engine.interrogate.clip import ClipInterrogator
    from sdapi.engine.interrogate.deepdanbooru import TagModel

_TAG_FOLDER, _TAG_FILE = "torch_deepdanbooru", "model-resnet_custom_v3.pt"


@dataclass(slots=True)
class Interrogators:
    """The interrogators of this server; one picture at a time, on the CPU."""

    settings: Settings
    _clip: "ClipInterrogator | None" = None
    _tags: "TagModel | None" = None
    _one_at_a_time: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))

    async def describe(self, image: Image, model: str, options: Options) -> str:
        """What is to be seen in a picture.

        Raises `Missing` for an unknown model, `NoModel` that names the file which is not there.
        """
        describe = {"clip": self._describe, "deepdanbooru": self._tag}.get(model)
        if describe is None:
            raise Missing("Model not found")
        return await anyio.to_thread.run_sync(describe, image, options, limiter=self._one_at_a_time)

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

    def _tag(self, image: Image, options: Options) -> str:
        from sdapi.engine.interrogate.deepdanbooru import TagModel, TagOptions  # imports torch

        if self._tags is None:
            self._tags = TagModel.load(self._tag_file())
        filtered = options.text("deepbooru_filter_tags").split(",")
        return self._tags.describe(
            image,
            TagOptions(
                threshold=options.number("interrogate_deepbooru_score_threshold"),
                sorts_by_name=options.flag("deepbooru_sort_alpha"),
                uses_spaces=options.flag("deepbooru_use_spaces"),
                escapes=options.flag("deepbooru_escape"),
                filtered=frozenset(tag.strip().replace(" ", "_") for tag in filtered),
                shows_ranks=options.flag("interrogate_return_ranks"),
            ),
        )

    def _tag_file(self) -> Path:
        """The published file, or the first one in its folder."""
        folder = self.settings.models_dir / _TAG_FOLDER
        published = folder / _TAG_FILE
        found = [published, *sorted(folder.glob("*.pt"))]
        path = next((path for path in found if path.is_file()), None)
        if path is None:
            raise NoModel(f"deepdanbooru needs the file {published}, which is not there")
        return path
