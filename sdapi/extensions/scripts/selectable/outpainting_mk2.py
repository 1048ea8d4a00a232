"""Outpainting mk2: extends a picture over noise of its own colours (contract: webui-scripts 2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import anyio.to_thread
from PIL import Image
from pydantic import BaseModel, Field

from sdapi.extensions.scripts.selectable.composite import (
    check_pictures,
    grid_of,
    told_by_first,
    wants_grid,
)
from sdapi.extensions.scripts.selectable.first_picture import img2img_request, opaque_first_picture
from sdapi.extensions.scripts.selectable.heading import HEADING, Heading
from sdapi.extensions.scripts.selectable.sides import SIDES, Extension, Side
from sdapi.images.colour_noise import fill_with_noise
from sdapi.images.masks import Box, white_around
from sdapi.schemas.coercion import Float, Int
from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.scripts.arguments import Arg
from sdapi.services.scripts.script import (
    GRID_PREFIX,
    IMG2IMG_ONLY,
    Generated,
    ScriptFile,
    ScriptPicture,
    ScriptResult,
    ScriptRun,
    SelectableScript,
)

_CANVAS_STEP: Final = 64
_ORIGINAL: Final = 1
Size = tuple[int, int]


class OutpaintingArgs(BaseModel):
    """As the webui's; the first is a heading."""

    info: Heading = HEADING
    pixels: Annotated[Int, Arg("Pixels to expand", 8, 256, 8)] = 128
    mask_blur: Annotated[Int, Arg("Mask blur", 0, 64, 1), Field(ge=0)] = 8
    direction: Annotated[list[Side], Arg("Outpainting direction", choices=SIDES)] = list(SIDES)
    exponent: Annotated[
        Float, Arg("Fall-off exponent (lower=higher detail)", 0.0, 4.0, 0.01), Field(ge=-10, le=10)
    ] = 1.0
    colour_variation: Annotated[
        Float, Arg("Color variation", 0.0, 1.0, 0.01), Field(ge=-10, le=10)
    ] = 0.05


class OutpaintingMk2(SelectableScript):
    """Extends a picture, one side after the other."""

    name = "Outpainting mk2"
    kinds = IMG2IMG_ONLY
    args = OutpaintingArgs

    async def run(self, run: ScriptRun, args: OutpaintingArgs) -> ScriptResult:
        asked = img2img_request(run)
        original = await opaque_first_picture(run, asked)
        extension = Extension.of(original.size, args.pixels, args.direction)
        check_pictures((asked.n_iter or 1) * (asked.batch_size or 1), extension.size)
        steps = _steps(args, extension)
        run.plan(len(steps) * (asked.n_iter or 1))
        images: list[Image.Image] = []
        made: list[Generated] = []
        for _ in range(asked.n_iter or 1):
            if run.is_interrupted:
                break
            batch = [original] * (asked.batch_size or 1)
            for step in steps:
                if run.is_interrupted:
                    break
                generated, batch = await self._extended(run, asked, args, step, batch)
                made.append(generated)
            images += batch
        if not made:
            return ScriptResult([], [], await run.outline(asked))
        return await anyio.to_thread.run_sync(_answer, run, made, images)

    async def _extended(
        self,
        run: ScriptRun,
        asked: Img2ImgRequest,
        args: OutpaintingArgs,
        step: "_Step",
        images: Sequence[Image.Image],
    ) -> tuple[Generated, list[Image.Image]]:
        """A batch after one step; what was interrupted stays as it was."""
        frame = _Frame(step, images[0].size, (asked.width or 0, asked.height or 0))
        noised = await anyio.to_thread.run_sync(frame.noised, images, args)
        own = await anyio.to_thread.run_sync(frame.fields, noised)
        generated = await run.generate(asked.model_copy(update=own))
        if len(generated.images) < len(images):
            return generated, list(images)
        return generated, await anyio.to_thread.run_sync(frame.joined, noised, generated.images)


@dataclass(frozen=True, slots=True)
class _Step:
    """One side that is extended by some pixels; blurs are those of the whole request."""

    side: Side
    pixels: int
    blur_x: int
    blur_y: int

    @property
    def is_across(self) -> bool:
        return self.side in ("left", "right")

    def kept(self, size: Size, whole: Size, times: int) -> Box:
        """The part of a mask of a size that stays black, where the picture ends at `whole`."""
        across, down = self.pixels + self.blur_x * times, self.pixels + self.blur_y * times
        return Box(
            across if self.side == "left" else 0,
            down if self.side == "up" else 0,
            size[0] - across if self.side == "right" else whole[0],
            size[1] - down if self.side == "down" else whole[1],
        )


def _steps(args: OutpaintingArgs, extension: Extension) -> list[_Step]:
    """The chosen sides in their order, with what each is extended by."""
    amounts = {
        "left": extension.left,
        "right": extension.right,
        "up": extension.up,
        "down": extension.down,
    }
    blur_x = args.mask_blur if extension.left or extension.right else 0
    blur_y = args.mask_blur if extension.up or extension.down else 0
    return [_Step(side, amounts[side], blur_x, blur_y) for side in SIDES if amounts[side]]


@dataclass(frozen=True, slots=True)
class _Frame:
    """The canvas of one step: a picture of `size` with room at one side, of which a part of about
    `asked` is drawn."""

    step: _Step
    size: Size
    asked: Size

    @property
    def whole(self) -> Size:
        """The size of the extended picture."""
        (width, height), pixels = self.size, self.step.pixels
        return (width + pixels, height) if self.step.is_across else (width, height + pixels)

    @property
    def canvas(self) -> Size:
        width, height = (math.ceil(side / _CANVAS_STEP) * _CANVAS_STEP for side in self.whole)
        return width, height

    @property
    def drawn(self) -> Size:
        """The size of the part that is drawn."""
        if self.step.is_across:
            return min(self.asked[0], self.whole[0]), self.canvas[1]
        return self.canvas[0], min(self.asked[1], self.whole[1])

    @property
    def part(self) -> Box:
        """Where that is on the canvas: at the side which is extended."""
        left = 0 if self.step.side == "left" else self.canvas[0] - self.drawn[0]
        upper = 0 if self.step.side == "up" else self.canvas[1] - self.drawn[1]
        return Box(left, upper, left + self.drawn[0], upper + self.drawn[1])

    @property
    def mask(self) -> Image.Image:
        """White where there is nothing yet, and one blur into the picture."""
        return white_around(self.canvas, self.step.kept(self.canvas, self.whole, 1))

    def noised(self, images: Sequence[Image.Image], args: OutpaintingArgs) -> list[Image.Image]:
        """The pictures on their canvases, the rest filled with noise; equal ones once."""
        pixels, side = self.step.pixels, self.step.side
        place = (pixels if side == "left" else 0, pixels if side == "up" else 0)
        mask, done = self.mask, dict[int, Image.Image]()
        for image in images:
            if id(image) in done:
                continue
            canvas = Image.new("RGB", self.canvas)
            canvas.paste(image, place)
            done[id(image)] = fill_with_noise(
                canvas, mask, exponent=args.exponent, colour_variation=args.colour_variation
            )
        return [done[id(image)] for image in images]

    def fields(self, noised: Sequence[Image.Image]) -> dict[str, Any]:
        """What the inner request has of its own."""
        return {
            "init_images": [image.crop(self.part) for image in noised],
            "mask": self.mask.crop(self.part),
            "latent_mask": self._latent_mask(),
            "mask_blur": None,
            "mask_blur_x": 4 * self.step.blur_x,
            "mask_blur_y": 4 * self.step.blur_y,
            "width": self.drawn[0],
            "height": self.drawn[1],
            "n_iter": 1,
            "inpaint_full_res": False,
            "inpainting_fill": _ORIGINAL,
            "do_not_save_samples": True,
            "do_not_save_grid": True,
        }

    def _latent_mask(self) -> Image.Image:
        return white_around(self.drawn, self.step.kept(self.drawn, self.whole, 2))

    def joined(
        self, noised: Sequence[Image.Image], drawn: Sequence[Image.Image]
    ) -> list[Image.Image]:
        """The extended pictures."""
        return [self._joined(*pair) for pair in zip(noised, drawn, strict=True)]

    def _joined(self, noised: Image.Image, drawn: Image.Image) -> Image.Image:
        left = 0 if self.step.side == "left" else noised.width - drawn.width
        upper = 0 if self.step.side == "up" else noised.height - drawn.height
        canvas = noised.copy()
        canvas.paste(drawn, (left, upper))
        return canvas.crop((0, 0, *self.whole))


def _answer(run: ScriptRun, made: list[Generated], images: list[Image.Image]) -> ScriptResult:
    """The pictures, with a grid where the options want one. Blocks."""
    first, options = made[0], run.options
    text = first.infotext()
    seeds = first.info.job.seeds
    pictures = [ScriptPicture(each, seed=seeds[0]) for each in images]
    files = [ScriptFile(each, text, info=first.info) for each in images]
    if wants_grid(images, options):
        grid = grid_of(images, options)
        files.append(ScriptFile(grid, text, is_grid=True, prefix=GRID_PREFIX, info=first.info))
        if options.flag("return_grid"):
            pictures.insert(0, ScriptPicture(grid, is_grid=True))
    return told_by_first(first, made[-1].info, pictures, files)
