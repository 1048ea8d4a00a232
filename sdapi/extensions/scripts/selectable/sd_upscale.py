"""SD upscale: enlarges a picture and draws it anew in tiles (contract: webui-scripts 4)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio.to_thread
from PIL import Image
from pydantic import BaseModel, Field

from sdapi.engine.upscaling.upscaler import Filter
from sdapi.errors import BadRequest, UnknownName, near_names
from sdapi.extensions.scripts.selectable.composite import check_pictures, told_by_first
from sdapi.extensions.scripts.selectable.first_picture import img2img_request, opaque_first_picture
from sdapi.extensions.scripts.selectable.heading import HEADING, Heading
from sdapi.images.tiles import TileGrid
from sdapi.schemas.coercion import Float, Int
from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.drafting.seeds import with_fixed_seeds
from sdapi.services.scripts.arguments import Arg
from sdapi.services.scripts.script import (
    IMG2IMG_ONLY,
    Generated,
    ScriptFile,
    ScriptPicture,
    ScriptResult,
    ScriptRun,
    SelectableScript,
)

if TYPE_CHECKING:
    from sdapi.services.container import Services

_MAX_PIXELS: Final = 64_000_000
_MAX_TILES: Final = 1000
_INNER: Final = {"n_iter": 1, "do_not_save_samples": True, "do_not_save_grid": True}


def _upscaler_names(services: "Services") -> list[str]:
    upscalers = Upscalers(services.settings)
    return [*upscalers.filters(), *(file.name for file in upscalers.files())]


class SDUpscaleArgs(BaseModel):
    """As the webui's; the first is a heading, the upscaler an index or a name, shown by name."""

    info: Heading = HEADING
    overlap: Annotated[Int, Arg("Tile overlap", 0, 256, 16), Field(ge=0)] = 64
    upscaler: Annotated[int | str, Arg("Upscaler", choices=_upscaler_names, shown="None")] = 0
    scale: Annotated[Float, Arg("Scale Factor", 1.0, 4.0, 0.05), Field(gt=0, le=100)] = 2.0


class SDUpscale(SelectableScript):
    """Enlarges a picture and draws it anew in tiles."""

    name = "SD upscale"
    kinds = IMG2IMG_ONLY
    args = SDUpscaleArgs

    async def run(self, run: ScriptRun, args: SDUpscaleArgs) -> ScriptResult:
        asked = img2img_request(run)
        name = await anyio.to_thread.run_sync(_find_upscaler, args.upscaler, run.services)
        picture = await _enlarged(run, args, name, asked)
        tile = (asked.width or 0, asked.height or 0)
        check_pictures(asked.n_iter or 1, picture.size)
        grid = _tile_grid(picture.size, tile, args.overlap)
        rows = await anyio.to_thread.run_sync(grid.split, picture)
        work = _Work(run, args, name, grid, [tile for row in rows for tile in row])
        started, batches = with_fixed_seeds(asked), asked.n_iter or 1
        run.plan(batches * len(work.groups(started)))
        combined: list[Image.Image] = []
        for n in range(batches):
            if run.is_interrupted:
                break
            request = started.model_copy(update={"seed": (started.seed or 0) + n})
            combined.append(await work.drawn(request))
        if not work.made:
            return ScriptResult([], [], await run.outline(asked))
        first = work.made[0]
        pictures = [ScriptPicture(each, seed=first.info.job.seeds[0]) for each in combined]
        files = [ScriptFile(each, first.infotext(), info=first.info) for each in combined]
        return told_by_first(first, work.made[-1].info, pictures, files)


@dataclass(slots=True)
class _Work:
    """The tiles of the enlarged picture, and what is made of them."""

    run: ScriptRun
    args: SDUpscaleArgs
    upscaler: str
    grid: TileGrid
    #: row by row
    tiles: list[Image.Image]
    made: list[Generated] = field(default_factory=list[Generated])

    def groups(self, request: Img2ImgRequest) -> list[list[Image.Image]]:
        """What is drawn at the same time."""
        size = request.batch_size or 1
        return [self.tiles[i : i + size] for i in range(0, len(self.tiles), size)]

    async def drawn(self, request: Img2ImgRequest) -> Image.Image:
        """The picture of one iteration; tiles that were interrupted stay as they were."""
        done: list[Image.Image] = []
        for group in self.groups(request):
            if self.run.is_interrupted:
                break
            request = request.model_copy(update={"init_images": group, **_INNER})
            generated = await self.run.generate(request, keys=self._keys)
            # A single tile is drawn as often as a batch has pictures.
            images = list(generated.images)[: len(group)]
            done += images + group[len(images) :]
            if images:
                self.made.append(generated)
            request = request.model_copy(update={"seed": generated.info.job.seeds[0] + 1})
        done += self.tiles[len(done) :]
        columns = len(self.grid.lefts)
        rows = [done[i : i + columns] for i in range(0, len(done), columns)]
        return await anyio.to_thread.run_sync(self.grid.combine, rows)

    def _keys(self, own: dict[str, Any]) -> dict[str, Any]:
        told = {"SD upscale overlap": self.args.overlap, "SD upscale upscaler": self.upscaler}
        return told | own


def _find_upscaler(asked: int | str, services: "Services") -> str:
    """The name that an index or a name in any case means; raises `UnknownName`. Blocks."""
    names = _upscaler_names(services)
    if isinstance(asked, int):
        if 0 <= asked < len(names):
            return names[asked]
        raise UnknownName(
            f"script_args, upscaler: {asked} is no index; there are 0 to {len(names) - 1}: "
            f"{near_names('', names)}"
        )
    for name in names:
        if name.lower() == asked.lower():
            return name
    raise UnknownName(
        f"script_args, upscaler: {asked.lower()!r} is not in list; there are "
        f"{near_names(asked, names)}"
    )


async def _enlarged(
    run: ScriptRun, args: SDUpscaleArgs, name: str, asked: Img2ImgRequest
) -> Image.Image:
    """The first init picture, opaque, at its new size."""
    picture = await opaque_first_picture(run, asked)
    upscalers = Upscalers(run.services.settings)
    upscaler = await anyio.to_thread.run_sync(upscalers.find, name, run.options)
    if upscaler is Filter.NONE:
        return picture
    width, height = (int(side * args.scale // 8 * 8) for side in picture.size)
    if min(width, height) < 8 or width * height > _MAX_PIXELS:
        raise BadRequest(
            f"script_args, scale factor: {args.scale:g} makes a picture of {width}x{height}; at "
            f"least 8x8, at most {_MAX_PIXELS // 1_000_000} megapixels"
        )
    return await run.upscale(picture, upscaler, args.scale)


def _tile_grid(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> TileGrid:
    """Raises `BadRequest` for tiles that cannot be."""
    if overlap >= min(tile):
        raise BadRequest(
            f"script_args, tile overlap: {overlap}; it must be less than width and height, "
            f"{tile[0]}x{tile[1]}"
        )
    grid = TileGrid.of(size, tile, overlap)
    if (count := len(grid.lefts) * len(grid.tops)) > _MAX_TILES:
        raise BadRequest(
            f"script_args: {count} tiles; at most {_MAX_TILES}, so take larger ones or less overlap"
        )
    return grid
