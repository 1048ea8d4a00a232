"""Poor man's outpainting: a larger canvas, drawn tile by tile (contract: webui-scripts 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

import anyio.to_thread
from PIL import Image
from pydantic import BaseModel, Field

from sdapi.errors import BadRequest
from sdapi.extensions.scripts.selectable.composite import told_by_first
from sdapi.extensions.scripts.selectable.first_picture import img2img_request, opaque_first_picture
from sdapi.extensions.scripts.selectable.sides import SIDES, Extension, Side
from sdapi.images.masks import Box, white_around
from sdapi.images.tiles import TileGrid
from sdapi.schemas.coercion import Int
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

Content = Literal["fill", "original", "latent noise", "latent nothing"]
_CONTENTS: Final[tuple[Content, ...]] = ("fill", "original", "latent noise", "latent nothing")
_MAX_TILES: Final = 1000


class PoorMansOutpaintingArgs(BaseModel):
    """As the webui's; the content is sent as an index, and shown by name."""

    pixels: Annotated[Int, Arg("Pixels to expand", 8, 256, 8)] = 128
    mask_blur: Annotated[Int, Arg("Mask blur", 0, 64, 1), Field(ge=0)] = 4
    content: Annotated[
        Literal[0, 1, 2, 3] | Content,
        Arg("Masked content", choices=list(_CONTENTS), shown="fill"),
    ] = 0
    direction: Annotated[list[Side], Arg("Outpainting direction", choices=SIDES)] = list(SIDES)


class PoorMansOutpainting(SelectableScript):
    """Extends a picture tile by tile."""

    name = "Poor man's outpainting"
    kinds = IMG2IMG_ONLY
    args = PoorMansOutpaintingArgs

    async def run(self, run: ScriptRun, args: PoorMansOutpaintingArgs) -> ScriptResult:
        asked = img2img_request(run)
        picture = await opaque_first_picture(run, asked)
        tiling = await anyio.to_thread.run_sync(
            _Tiling.of, picture, args, (asked.width or 0, asked.height or 0)
        )
        places = tiling.places
        run.plan(len(places))
        request, made = asked, list[Generated]()
        for row, column in places:
            if run.is_interrupted:
                break
            request = request.model_copy(update=_fields(args) | tiling.fields(row, column))
            generated = await run.generate(request, keys=partial(_keys, args))
            if generated.images:
                tiling.tiles[row][column] = generated.images[0]
                made.append(generated)
            request = request.model_copy(update={"seed": generated.info.job.seeds[0] + 1})
        combined = await anyio.to_thread.run_sync(tiling.grid.combine, tiling.tiles)
        if not made:
            return ScriptResult([ScriptPicture(combined)], [None], await run.outline(asked))
        first = made[0]
        pictures = [ScriptPicture(combined, seed=first.info.job.seeds[0])]
        file = ScriptFile(combined, first.infotext(), info=first.info)
        return told_by_first(first, made[-1].info, pictures, [file])


@dataclass(frozen=True, slots=True)
class _Tiling:
    """The canvas in tiles, with a mask and a latent mask for each."""

    grid: TileGrid
    extension: Extension
    tiles: list[list[Image.Image]]
    masks: Sequence[Sequence[Image.Image]]
    latent_masks: Sequence[Sequence[Image.Image]]

    @classmethod
    def of(cls, picture: Image.Image, args: PoorMansOutpaintingArgs, tile: tuple[int, int]) -> Self:
        """Raises `BadRequest` for tiles that cannot be."""
        if args.pixels >= min(tile):
            raise BadRequest(
                f"script_args, pixels to expand: {args.pixels}; tiles of {tile[0]}x{tile[1]} "
                "overlap by that much, so it must be less than width and height"
            )
        extension = Extension.of(picture.size, args.pixels, args.direction)
        grid = TileGrid.of(extension.size, tile, args.pixels)
        if len(grid.lefts) * len(grid.tops) > _MAX_TILES:
            raise BadRequest(
                f"script_args: {len(grid.lefts) * len(grid.tops)} tiles; at most {_MAX_TILES}"
            )
        canvas = Image.new("RGB", extension.size)
        canvas.paste(picture, (extension.left, extension.up))
        masks = [
            grid.split(_mask(extension, blur)) for blur in (args.mask_blur * 2, args.mask_blur // 2)
        ]
        return cls(grid, extension, grid.split(canvas), masks[0], masks[1])

    @property
    def places(self) -> list[tuple[int, int]]:
        """The (row, column) of every tile that is to be drawn."""
        return [
            (row, column)
            for row, top in enumerate(self.grid.tops)
            for column, left in enumerate(self.grid.lefts)
            if not self._is_inside(left, top)
        ]

    def _is_inside(self, left: int, top: int) -> bool:
        """Whether a tile shows nothing but the original."""
        (width, height), extension = self.extension.size, self.extension
        return (
            left >= extension.left
            and top >= extension.up
            and left + self.grid.tile[0] <= width - extension.right
            and top + self.grid.tile[1] <= height - extension.down
        )

    def fields(self, row: int, column: int) -> dict[str, Any]:
        """What the request of a tile has of its own."""
        return {
            "init_images": [self.tiles[row][column]],
            "mask": self.masks[row][column],
            "latent_mask": self.latent_masks[row][column],
        }


def _mask(extension: Extension, blur: int) -> Image.Image:
    """White where there was nothing, and `blur` pixels into the original."""
    (width, height), each = extension.size, extension
    kept = Box(
        each.left + blur * (each.left > 0),
        each.up + blur * (each.up > 0),
        width - each.right - blur * (each.right > 0),
        height - each.down - blur * (each.down > 0),
    )
    return white_around(extension.size, kept)


def _fields(args: PoorMansOutpaintingArgs) -> dict[str, Any]:
    """What all inner requests have in common."""
    content = args.content if isinstance(args.content, int) else _CONTENTS.index(args.content)
    return {
        "batch_size": 1,
        "n_iter": 1,
        "do_not_save_samples": True,
        "do_not_save_grid": True,
        "inpaint_full_res": False,
        "inpainting_fill": content,
        "mask_blur": args.mask_blur * 2,
    }


def _keys(args: PoorMansOutpaintingArgs, own: dict[str, Any]) -> dict[str, Any]:
    """Only a content sent as an index shows in infotexts, as in the reference."""
    hides = isinstance(args.content, str)
    return {key: value for key, value in own.items() if not (hides and key == "Masked content")}
