"""Further states of a picture - masks, what it was before its colours changed - and where they go.

Contract: webui-generation 16, webui-api 7.1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from PIL.Image import Image

from sdapi.engine.jobs.job import BEFORE_HIRES, GeneratedImage
from sdapi.options import Options

MASK: Final = "mask"
MASK_COMPOSITE: Final = "mask-composite"
BEFORE_COLOURS: Final = "before-color-correction"
#: saved before the pictures of their batch
_BEFORE_BATCH: Final = (BEFORE_HIRES,)
#: saved before their picture, and after it, in this order
_BEFORE: Final = ("before-face-restoration", BEFORE_COLOURS)
_AFTER: Final = (MASK, MASK_COMPOSITE)
#: suffix -> the option that saves it
SAVED_BY: Final = {
    BEFORE_HIRES: "save_images_before_highres_fix",
    "before-face-restoration": "save_images_before_face_restoration",
    BEFORE_COLOURS: "save_images_before_color_correction",
    MASK: "save_mask",
    MASK_COMPOSITE: "save_mask_composite",
}
#: suffix -> the option that answers with it
ANSWERED_BY: Final = {MASK: "return_mask", MASK_COMPOSITE: "return_mask_composite"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a job's result or, with a suffix, another state of it."""

    #: its place among the job's prompts and seeds
    index: int
    image: Image
    suffix: str = ""


def is_wanted(suffix: str, options: Options) -> bool:
    """Whether a state of a picture is to be saved or answered with."""
    return options.flag(SAVED_BY[suffix]) or (
        suffix in ANSWERED_BY and options.flag(ANSWERED_BY[suffix])
    )


def answered(images: Sequence[GeneratedImage], options: Options) -> list[Picture]:
    """The pictures of an answer, each followed by its states."""
    found: list[Picture] = []
    for each in images:
        found.append(Picture(each.index, each.image))
        wanted = [s for s in _AFTER if options.flag(ANSWERED_BY[s])]
        found += _states(each, wanted)
    return found


def saved(images: Sequence[GeneratedImage], batch_size: int, options: Options) -> Iterator[Picture]:
    """The files of a result in the order of their numbers."""

    def wanted(suffixes: Sequence[str]) -> list[str]:
        return [suffix for suffix in suffixes if options.flag(SAVED_BY[suffix])]

    for _, batch in groupby(images, key=lambda each: each.index // batch_size):
        members = list(batch)
        for each in members:
            yield from _states(each, wanted(_BEFORE_BATCH))
        for each in members:
            yield from _states(each, wanted(_BEFORE))
            yield Picture(each.index, each.image)
            yield from _states(each, wanted(_AFTER))


def _states(each: GeneratedImage, suffixes: Sequence[str]) -> list[Picture]:
    return [Picture(each.index, each.variants[s], s) for s in suffixes if s in each.variants]
