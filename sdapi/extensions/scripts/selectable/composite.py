"""Answers that a script makes of pictures of its own (contract: webui-scripts 1.3)."""

from collections.abc import Sequence
from typing import Any, Final

from PIL import Image

from sdapi.errors import BadRequest
from sdapi.images import grid_rows, make_grid
from sdapi.options import Options
from sdapi.services.generation.telling.generation_info import GenerationInfo
from sdapi.services.scripts.script import Generated, ScriptFile, ScriptPicture, ScriptResult

#: of all pictures that a script answers with
MAX_PICTURES: Final = 1000
_MAX_PIXELS: Final = 1_000_000_000


def check_pictures(count: int, size: tuple[int, int] = (0, 0)) -> None:
    """Refuse more pictures in all, here of one size, than a server can hold; as `BadRequest`."""
    if count > MAX_PICTURES:
        raise BadRequest(f"script_args: {count} pictures in all; at most {MAX_PICTURES}")
    if (pixels := count * size[0] * size[1]) > _MAX_PIXELS:
        raise BadRequest(
            f"script_args: {count} pictures of {size[0]}x{size[1]} are {pixels // 1_000_000} "
            f"megapixels in all; at most {_MAX_PIXELS // 1_000_000}"
        )


def told_by_first(
    first: Generated,
    last: GenerationInfo,
    pictures: Sequence[ScriptPicture],
    files: Sequence[ScriptFile] = (),
    **changes: Any,
) -> ScriptResult:
    """Pictures with the seed and, each time, the infotext of the first inner generation; the rest
    of `info` is the last one's."""
    told = {"seed": first.info.job.seeds[0], "subseed": -1, **changes}
    return ScriptResult(pictures, [first.infotext()] * len(pictures), last, told, files=files)


def grid_of(
    images: Sequence[Image.Image], options: Options, *, rows: int | None = None
) -> Image.Image:
    """A plain grid as the options want it."""
    rows = grid_rows(len(images), options) if rows is None else rows
    return make_grid(images, rows, background=options.text("grid_background_color"))


def wants_grid(images: Sequence[Image.Image], options: Options) -> bool:
    """Whether the options want a grid of these."""
    return len(images) > 1 or not (options.flag("grid_only_if_multiple") or not images)
