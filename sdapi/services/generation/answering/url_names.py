"""A request's pictures as URL mode names them (design section 4)."""

from collections.abc import Sequence

from sdapi.engine.jobs.job import Result
from sdapi.services.generation.answering import url_mode
from sdapi.services.generation.order import Order
from sdapi.services.generation.pictures.gathered import Pictures
from sdapi.services.generation.telling.generation_info import GenerationInfo
from sdapi.services.scripts.script import ScriptResult


def named_for_urls(
    kind: str, pictures: Pictures, info: GenerationInfo
) -> list[url_mode.NamedImage]:
    """A job's pictures as URL mode names them, grid first."""
    named: list[url_mode.NamedImage] = []
    if pictures.grid is not None:
        named.append(
            url_mode.NamedImage(
                f"{kind}-grids", url_mode.grid_stem(), pictures.grid, info.infotext(0)
            )
        )
    for each in pictures.images:
        stem = url_mode.image_stem(info.job.seeds[each.index])
        text = info.infotext(each.index)
        named.append(url_mode.NamedImage(f"{kind}-images", stem, each.image, text))
    return named


def maps_for_urls(result: Result, info: GenerationInfo) -> list[url_mode.NamedImage]:
    """The maps that ControlNet units detected as URL mode names them, for each iteration anew."""
    return [
        url_mode.NamedImage(url_mode.MAP_FOLDER, url_mode.map_stem(), image)
        for _ in range(info.job.n_iter)
        for image in result.detected_maps
    ]


def seeds_of(pictures: Pictures, info: GenerationInfo) -> Sequence[int]:
    """The seeds of the pictures there are."""
    return [info.job.seeds[index] for index in pictures.indices]


def script_named_for_urls(
    order: Order, result: ScriptResult
) -> tuple[list[url_mode.NamedImage], list[int]]:
    """A script's pictures as URL mode names them, and their seeds."""
    pictures = [each for each in result.pictures if not each.is_extra]
    named = [
        url_mode.NamedImage(
            f"{order.kind}-{'grids' if each.is_grid else 'images'}",
            url_mode.grid_stem() if each.is_grid else url_mode.image_stem(each.seed),
            each.image,
            each.infotext or "",
        )
        for each in pictures
    ]
    return named, [each.seed for each in pictures if not each.is_grid]
