"""The interrogators' models, read from local files at the first picture.

Contract: webui-api 11.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL.Image import Image

from sdapi.errors import BadRequest, NoModel
from sdapi.options import Options
from sdapi.services.interrogation.interrogators import Describe
from sdapi.settings import Settings

if TYPE_CHECKING:
    from sdapi.engine.interrogate.clip import ClipInterrogator
    from sdapi.engine.interrogate.deepdanbooru import TagModel

_TAG_FOLDER, _TAG_FILE = "torch_deepdanbooru", "model-resnet_custom_v3.pt"
_MAX_BEAMS: Final = 24
#: tokens of a caption
_MAX_LENGTH: Final = 256


@dataclass(slots=True)
class LocalModels:
    """Describes pictures; belongs to one thread. Raises `NoModel` for a file that is not there."""

    settings: Settings
    _clip: "ClipInterrogator | None" = None
    _tags: "TagModel | None" = None

    def by_name(self) -> Mapping[str, Describe]:
        """As requests name them."""
        return {"clip": self._describe, "deepdanbooru": self._tag}

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
                beams=_at_most(_MAX_BEAMS, options, "interrogate_clip_num_beams"),
                min_length=_at_most(_MAX_LENGTH, options, "interrogate_clip_min_length"),
                max_length=_at_most(_MAX_LENGTH, options, "interrogate_clip_max_length"),
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


def _at_most(most: int, options: Options, key: str) -> int:
    """A whole number that says how long a caption takes."""
    if (value := options.integer(key)) > most:
        raise BadRequest(f"{key}: {value} is too many; at most {most}")
    return value
