"""The script: draws all cells, and lays them out in grids (contract: webui-scripts 8.3 and 8.4)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import anyio.to_thread
from PIL import Image
from pydantic import BaseModel, Field

from sdapi.errors import BadRequest, SDAPIError, TaskCancelled
from sdapi.extensions.scripts.selectable.composite import check_pictures, grid_of
from sdapi.extensions.scripts.selectable.xyz_plot.axes import axes_of
from sdapi.extensions.scripts.selectable.xyz_plot.plan import AskedAxis, Cell, Plan, plan_axes
from sdapi.images.grids.legend import Label, LegendStyle, add_legend
from sdapi.schemas.coercion import Bool, Int, Str
from sdapi.schemas.generation import Txt2ImgRequest
from sdapi.services.generation.drafting.seeds import with_fixed_seeds
from sdapi.services.generation.telling.generation_info import GenerationInfo
from sdapi.services.scripts.arguments import Arg
from sdapi.services.scripts.script import (
    Generated,
    GenerationRequest,
    Kind,
    ScriptFile,
    ScriptPicture,
    ScriptResult,
    ScriptRun,
    SelectableScript,
)

if TYPE_CHECKING:
    from sdapi.services.container import Services

_PREFIX = "xyz_grid"


class XYZPlotArgs(BaseModel):
    """As the webui's; axes are sent as indices or names, and shown by name."""

    x_type: Annotated[int | str | None, Arg("X type", shown="Seed")] = 1
    x_values: Annotated[Str, Arg("X values")] = ""
    x_list: Annotated[list[Str] | None, Arg("X values", choices=[])] = None
    y_type: Annotated[int | str | None, Arg("Y type", shown="Nothing")] = 0
    y_values: Annotated[Str, Arg("Y values")] = ""
    y_list: Annotated[list[Str] | None, Arg("Y values", choices=[])] = None
    z_type: Annotated[int | str | None, Arg("Z type", shown="Nothing")] = 0
    z_values: Annotated[Str, Arg("Z values")] = ""
    z_list: Annotated[list[Str] | None, Arg("Z values", choices=[])] = None
    draw_legend: Annotated[Bool, Arg("Draw legend")] = True
    sub_images: Annotated[Bool, Arg("Include Sub Images")] = False
    sub_grids: Annotated[Bool, Arg("Include Sub Grids")] = False
    keep_random: Annotated[Bool, Arg("Keep -1 for seeds")] = False
    vary_x: Annotated[Bool, Arg("Vary seeds for X")] = False
    vary_y: Annotated[Bool, Arg("Vary seeds for Y")] = False
    vary_z: Annotated[Bool, Arg("Vary seeds for Z")] = False
    margin: Annotated[Int, Arg("Grid margins (px)", 0, 500, 2), Field(ge=0, le=5000)] = 0
    as_text: Annotated[Bool, Arg("Use text inputs instead of dropdowns")] = False


class XYZPlot(SelectableScript):
    """A grid over up to three settings."""

    name = "X/Y/Z plot"
    args = XYZPlotArgs
    #: places of the axes' types among the arguments
    _TYPES: ClassVar = (0, 3, 6)

    def describe(self, kind: Kind, services: "Services") -> list[dict[str, Any]]:
        """The axes differ between the two kinds, and by what the page offers."""
        names = [axis.name for axis in axes_of(kind, has_page=services.settings.webui)]
        described = super().describe(kind, services)
        return [
            each | {"choices": names} if place in self._TYPES else each
            for place, each in enumerate(described)
        ]

    async def run(self, run: ScriptRun, args: XYZPlotArgs) -> ScriptResult:
        style, plan = await anyio.to_thread.run_sync(_plan, run, args)
        asked = run.request if args.keep_random else with_fixed_seeds(run.request)
        if not run.options.flag("return_grid"):
            asked = asked.model_copy(update={"batch_size": 1})
        if plan.count == 0:
            return ScriptResult([], [], await run.outline(asked))
        await anyio.to_thread.run_sync(_check_size, plan, asked, run)
        for cell in plan.edge_cells():
            await _check(run, plan, asked, cell)
        plot = _Plot(run, args, plan, style, await _draw_cells(run, plan, asked))
        return await anyio.to_thread.run_sync(plot.result)


def _plan(run: ScriptRun, args: XYZPlotArgs) -> tuple[LegendStyle, Plan]:
    """How the legend looks, and the cells. Blocks."""
    settings = run.services.settings
    asked = [
        AskedAxis("X", args.x_type, args.x_values, args.x_list, args.vary_x),
        AskedAxis("Y", args.y_type, args.y_values, args.y_list, args.vary_y),
        AskedAxis("Z", args.z_type, args.z_values, args.z_list, args.vary_z),
    ]
    axes = axes_of(run.kind, has_page=settings.webui)
    plan = plan_axes(asked, axes, run.services, as_text=args.as_text, keeps_random=args.keep_random)
    return LegendStyle.of(run.options, settings.fonts_dir), plan


def _check_size(plan: Plan, asked: GenerationRequest, run: ScriptRun) -> None:
    """Refuse a grid that is too large, before it is drawn; no cell is larger than these. Blocks.

    A request may want less than the server's option allows, and not more.
    """
    sizes = [plan.request(asked, cell) for cell in plan.edge_cells()]
    width = max(request.width or 0 for request in sizes)
    height = max(request.height or 0 for request in sizes)
    check_pictures(plan.count * (asked.batch_size or 1) * (asked.n_iter or 1), (width, height))
    megapixels = round(plan.count * width * height / 1e6)
    limits = (run.options, run.services.options.current)
    most = min(options.integer("img_max_size_mp") for options in limits)
    if megapixels >= most:
        raise BadRequest(
            f"Error: Resulting grid would be too large ({megapixels} MPixels) (max configured size "
            f"is {most} MPixels)"
        )


async def _check(run: ScriptRun, plan: Plan, asked: GenerationRequest, cell: Cell) -> None:
    """Refuse a value that no job could be made of, before anything is drawn."""
    request = await anyio.to_thread.run_sync(plan.request, asked, cell)
    try:
        await run.check(request)
    except SDAPIError as error:
        raise type(error)(f"script_args, {plan.label(cell)}: {error.detail}") from error


async def _draw_cells(
    run: ScriptRun, plan: Plan, asked: GenerationRequest
) -> list[Generated | None]:
    """What every cell made, by its index; None for one that failed, or came after an interrupt.

    Raises the first failure where nothing could be drawn.
    """
    passes = (asked.n_iter or 1) * (
        1 + (isinstance(asked, Txt2ImgRequest) and bool(asked.enable_hr))
    )
    run.plan(plan.count * passes)
    made: list[Generated | None] = [None] * plan.count
    failure: SDAPIError | None = None
    for cell in plan.cells():
        if run.is_interrupted:
            break
        try:
            request = await anyio.to_thread.run_sync(plan.request, asked, cell)
            generated = await run.generate(request)
        except TaskCancelled:
            raise
        except SDAPIError as error:
            failure = failure or error
            run.warn(f"the cell of {plan.label(cell)} is black: {error.detail}")
        else:
            made[plan.index(cell)] = generated if generated.images else None
    if failure is not None and not any(made):
        raise failure
    return made


@dataclass(frozen=True, slots=True)
class _Plot:
    """The cells that were drawn, and the grids over them."""

    run: ScriptRun
    args: XYZPlotArgs
    plan: Plan
    style: LegendStyle
    made: Sequence[Generated | None]

    def result(self) -> ScriptResult:
        """The answer. Blocks."""
        drawn = [each for each in self.made if each is not None]
        if not drawn:
            return ScriptResult([], [], None)
        plan, args = self.plan, self.args
        pictures = self._pictures(drawn[0])
        size = len(plan.x) * len(plan.y)
        grids = [self._sub_grid(pictures[i : i + size]) for i in range(0, len(pictures), size)]
        firsts = self.made[::size]
        main = ScriptPicture(self._main_grid(grids), is_grid=True)
        subs = [ScriptPicture(grid, is_grid=True) for grid in grids] if args.sub_grids else []
        sub_texts = [self._text(first, "XY") for first in firsts] if subs else []
        main_text = self._text(firsts[0] or drawn[0], "XYZ")
        told = [*(firsts if subs else ()), *self.made]
        return ScriptResult(
            [main, *subs, *(self._cells(pictures) if args.sub_images else ())],
            [main_text, *sub_texts, *(each and each.infotext() for each in self.made)],
            drawn[0].info,
            {
                "all_prompts": [each and each.info.job.prompts[0] for each in told],
                "all_seeds": [each and each.info.job.seeds[0] for each in told],
            },
            index_of_first_image=1,
            files=self._files(main.image, main_text, grids, sub_texts),
        )

    def _pictures(self, first: Generated) -> list[Image.Image]:
        """The picture of every cell; one that is not there is black."""
        model = _shown(first)
        black = Image.new(model.mode, model.size)
        return [black if each is None else _shown(each) for each in self.made]

    def _cells(self, pictures: Sequence[Image.Image]) -> list[ScriptPicture]:
        return [
            ScriptPicture(picture, each.infotext(), each.info.job.seeds[0])
            if each
            else ScriptPicture(picture)
            for picture, each in zip(pictures, self.made, strict=True)
        ]

    def _sub_grid(self, pictures: Sequence[Image.Image]) -> Image.Image:
        """The cells of one Z value, with their legend."""
        grid = grid_of(pictures, self.run.options, rows=len(self.plan.y))
        columns, rows = (
            [[Label(text)] for text in axis.labels] for axis in (self.plan.x, self.plan.y)
        )
        if not self.args.draw_legend:
            return grid
        return add_legend(grid, _largest(pictures), columns, rows, self.style, self.args.margin)

    def _main_grid(self, grids: Sequence[Image.Image]) -> Image.Image:
        """The grids of all Z values side by side."""
        grid = grid_of(grids, self.run.options, rows=1)
        if not self.args.draw_legend:
            return grid
        titles = [[Label(text)] for text in self.plan.z.labels]
        return add_legend(grid, _largest(grids), titles, [[Label("")]], self.style)

    def _text(self, first: Generated | None, letters: str) -> str | None:
        """The infotext of a grid over some axes: that of its first cell, and what they vary."""
        if first is None:
            return None
        keys: dict[str, Any] = {"Script": XYZPlot.name}
        for letter in letters:
            axis = {"X": self.plan.x, "Y": self.plan.y, "Z": self.plan.z}[letter]
            keys |= axis.keys(letter, keeps_random=self.args.keep_random)
        info: GenerationInfo = replace(first.info, extra=first.info.extra | keys)
        return info.infotext(0)

    def _files(
        self,
        main: Image.Image,
        main_text: str | None,
        grids: Sequence[Image.Image],
        sub_texts: Sequence[str | None],
    ) -> list[ScriptFile]:
        files = [ScriptFile(main, main_text, is_grid=True, prefix=_PREFIX)]
        if len(grids) > 1:
            size = len(self.plan.x) * len(self.plan.y)
            firsts = self.made[::size]
            files += [
                ScriptFile(
                    grid, text, is_grid=True, prefix=_PREFIX, info=first.info if first else None
                )
                for grid, text, first in zip(grids, sub_texts, firsts, strict=False)
            ]
        return files


def _shown(generated: Generated) -> Image.Image:
    """The picture of a cell: its own grid where there is one, else the first."""
    return generated.grid or generated.images[0]


def _largest(pictures: Sequence[Image.Image]) -> tuple[int, int]:
    return max(p.width for p in pictures), max(p.height for p in pictures)
