"""Prompt matrix: every combination of the parts of a prompt (contract: webui-scripts 6)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal

import anyio.to_thread
from PIL import Image
from pydantic import BaseModel, Field

from sdapi.engine.jobs.job import Job
from sdapi.errors import BadRequest
from sdapi.extensions.scripts.selectable.composite import grid_of
from sdapi.images.grids.legend import Label, Labels, LegendStyle, add_legend
from sdapi.schemas.coercion import Bool, Int
from sdapi.schemas.generation import Txt2ImgRequest
from sdapi.services.generation.drafting.seeds import with_fixed_seeds
from sdapi.services.scripts.arguments import Arg
from sdapi.services.scripts.script import (
    Generated,
    GenerationRequest,
    ScriptFile,
    ScriptPicture,
    ScriptResult,
    ScriptRun,
    SelectableScript,
)

Which = Literal["positive", "negative"]
Joining = Literal["comma", "space"]
_JOINTS: Final[dict[Joining, str]] = {"comma": ", ", "space": " "}
_SEPARATOR: Final = "|"
_MAX_PARTS: Final = 9


class PromptMatrixArgs(BaseModel):
    """As the webui's."""

    at_start: Annotated[Bool, Arg("Put variable parts at start of prompt")] = False
    different_seeds: Annotated[Bool, Arg("Use different seed for each picture")] = False
    prompt: Annotated[Which, Arg("Select prompt", choices=["positive", "negative"])] = "positive"
    joining: Annotated[Joining, Arg("Select joining char", choices=list(_JOINTS))] = "comma"
    margin: Annotated[Int, Arg("Grid margins (px)", 0, 500, 2), Field(ge=0, le=5000)] = 0


class PromptMatrix(SelectableScript):
    """Every combination of the parts of a prompt."""

    name = "Prompt matrix"
    args = PromptMatrixArgs

    async def run(self, run: ScriptRun, args: PromptMatrixArgs) -> ScriptResult:
        asked = with_fixed_seeds(run.request)
        style, parts, texts = await anyio.to_thread.run_sync(_plan, run, asked, args)
        batches = math.ceil(len(texts) / (asked.batch_size or 1))
        request = asked.model_copy(update={"n_iter": batches, "do_not_save_grid": True})

        def change(job: Job) -> Job:
            return _with_texts(job, texts, args, hires_follows=_hires_follows(asked))

        run.plan(batches * (2 if isinstance(asked, Txt2ImgRequest) and asked.enable_hr else 1))
        generated = await run.generate(request, change=change)
        if not generated.images:
            return ScriptResult([], [], generated.info)
        legend = await anyio.to_thread.run_sync(
            _grid, generated.images, parts[1:], args, style, run
        )
        return _answer(generated, legend)


def combinations(parts: Sequence[str], args: PromptMatrixArgs) -> list[str]:
    """The texts of all pictures; part `j` is in those whose number has bit `j`."""
    constant, *variable = parts
    variable = [part.strip().strip(",") for part in variable]
    found: list[str] = []
    for number in range(1 << len(variable)):
        chosen = [part for j, part in enumerate(variable) if number >> j & 1]
        ordered = [*chosen, constant] if args.at_start else [constant, *chosen]
        found.append(_JOINTS[args.joining].join(ordered))
    return found


def _plan(
    run: ScriptRun, asked: GenerationRequest, args: PromptMatrixArgs
) -> tuple[LegendStyle, list[str], list[tuple[str, str]]]:
    """How the legend looks, the parts of the prompt, and both texts of every picture. Blocks."""
    style = LegendStyle.of(run.options, run.services.settings.fonts_dir)
    name = "prompt" if args.prompt == "positive" else "negative_prompt"
    text: str = getattr(asked, name) or ""
    parts = text.split(_SEPARATOR)
    if (count := len(parts) - 1) > _MAX_PARTS:
        raise BadRequest(
            f"{count} variable parts make {2**count} pictures; at most {_MAX_PARTS} parts"
        )
    requests = (asked.model_copy(update={name: text}) for text in combinations(parts, args))
    return style, parts, [run.texts(each) for each in requests]


def _hires_follows(asked: GenerationRequest) -> tuple[bool, bool]:
    """Whether the second pass draws from the prompt, and from the negative prompt, of the first."""
    if not isinstance(asked, Txt2ImgRequest):
        return False, False
    return not asked.hr_prompt, not asked.hr_negative_prompt


def _with_texts(
    job: Job,
    texts: Sequence[tuple[str, str]],
    args: PromptMatrixArgs,
    *,
    hires_follows: tuple[bool, bool],
) -> Job:
    """The job with a text, a seed and a subseed for each picture."""
    count = len(texts)
    prompts, negatives = (tuple(each) for each in zip(*texts, strict=True))
    hires = job.hires
    if hires is not None:
        hires = replace(
            hires,
            prompts=prompts if hires_follows[0] else hires.prompts[:count],
            negative_prompts=negatives if hires_follows[1] else hires.negative_prompts[:count],
        )
    return replace(
        job,
        prompts=prompts,
        negative_prompts=negatives,
        seeds=tuple(job.seeds[0] + i * args.different_seeds for i in range(count)),
        subseeds=tuple(job.subseeds[0] + i for i in range(count)),
        hires=hires,
    )


def _grid(
    images: Sequence[Image.Image],
    parts: Sequence[str],
    args: PromptMatrixArgs,
    style: LegendStyle,
    run: ScriptRun,
) -> Image.Image:
    across = math.ceil(len(parts) / 2)
    grid = grid_of(images, run.options, rows=1 << (len(parts) - across))
    columns, rows = _labels(parts[:across]), _labels(parts[across:])
    return add_legend(grid, images[0].size, columns, rows, style, args.margin)


def _labels(parts: Sequence[str]) -> Labels:
    """For each position the parts, those active that its number has the bit of."""
    return [
        [Label(part, is_active=bool(place >> i & 1)) for i, part in enumerate(parts)]
        for place in range(1 << len(parts))
    ]


def _answer(generated: Generated, grid: Image.Image) -> ScriptResult:
    pictures = generated.pictures
    return ScriptResult(
        [ScriptPicture(grid, is_grid=True), *pictures],
        [generated.infotext(), *(each.infotext for each in pictures if not each.is_extra)],
        generated.info,
        index_of_first_image=1,
        files=[ScriptFile(grid, None, is_grid=True, prefix="prompt_matrix")],
    )
