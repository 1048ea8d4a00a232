"""A job's pictures with their grid (contract: webui-api 7.1)."""

from dataclasses import dataclass

from PIL import Image

from sdapi import images as codecs
from sdapi.engine.jobs.job import GeneratedImage, Result
from sdapi.options import Options
from sdapi.services.generation.pictures.variants import answered


@dataclass(frozen=True, slots=True)
class Pictures:
    """A job's pictures, with a grid where there is one."""

    grid: Image.Image | None
    images: tuple[GeneratedImage, ...]
    #: what scripts add to the end of an answer, without texts
    extra: tuple[Image.Image, ...] = ()
    #: what ControlNet units detected, after those
    maps: tuple[Image.Image, ...] = ()

    @property
    def indices(self) -> tuple[int, ...]:
        """The index of each image among the job's prompts and seeds."""
        return tuple(each.index for each in self.images)


def with_grid(result: Result, options: Options, batch_size: int, *, wanted: bool) -> Pictures:
    """The pictures of a result, with a grid of all that are answered when wanted."""
    grid = None
    if wanted and result.images:
        shown = [each.image for each in answered(result.images, options)]
        rows = codecs.grid_rows(len(shown), options, batch_size)
        grid = codecs.make_grid(shown, rows, background=options.text("grid_background_color"))
    return Pictures(grid, result.images, result.extra_images, result.detected_maps)


def wants_grid(result: Result, options: Options, *, saves: bool) -> bool:
    """Whether a webui answer or its folder gets a grid (contract: webui-api 7.1)."""
    if not saves or not (options.flag("return_grid") or options.flag("grid_save")):
        return False
    several = len(answered(result.images, options)) > 1
    return several or not options.flag("grid_only_if_multiple")
