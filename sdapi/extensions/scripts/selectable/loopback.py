"""Loopback: every picture is the init image of the next (contract: webui-scripts 5)."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import anyio.to_thread
from PIL import Image
from pydantic import BaseModel, Field

from sdapi.extensions.scripts.selectable.composite import (
    MAX_PICTURES,
    check_pictures,
    grid_of,
    told_by_first,
)
from sdapi.extensions.scripts.selectable.first_picture import (
    first_picture,
    img2img_request,
    opaque_first_picture,
)
from sdapi.schemas.coercion import Int
from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.generation.drafting.seeds import with_fixed_seeds
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

Curve = Literal["Aggressive", "Linear", "Lazy"]
Interrogation = Literal["None", "CLIP", "DeepBooru"]
_CURVES: Final[Mapping[Curve, Callable[[float], float]]] = {
    "Aggressive": lambda share: math.sin(share * math.pi / 2),
    "Linear": lambda share: share,
    "Lazy": lambda share: 1 - math.cos(share * math.pi / 2),
}
_INTERROGATORS: Final = {"CLIP": "clip", "DeepBooru": "deepdanbooru"}
_ORIGINAL: Final = 1
#: beyond what any denoising strength may be
_FAR: Final = 100_000


class LoopbackArgs(BaseModel):
    """As the webui's."""

    loops: Annotated[Int, Arg("Loops", 1, 32, 1), Field(ge=1, le=MAX_PICTURES)] = 4
    final_strength: Annotated[
        int | float, Arg("Final denoising strength", 0, 1, 0.01), Field(ge=-_FAR, le=_FAR)
    ] = 0.5
    curve: Annotated[Curve, Arg("Denoising strength curve", choices=list(_CURVES))] = "Linear"
    interrogate: Annotated[
        Interrogation,
        Arg("Append interrogated prompt at each iteration", choices=["None", *_INTERROGATORS]),
    ] = "None"


class Loopback(SelectableScript):
    """Feeds each picture into the next generation."""

    name = "Loopback"
    kinds = IMG2IMG_ONLY
    args = LoopbackArgs

    async def run(self, run: ScriptRun, args: LoopbackArgs) -> ScriptResult:
        asked = img2img_request(run)
        batches = asked.n_iter or 1
        check_pictures(batches * args.loops)
        run.plan(batches * args.loops)
        started = with_fixed_seeds(asked)
        made: list[Generated] = []
        for _ in range(batches):
            if run.is_interrupted:
                break
            batch = await self._batch(run, args, started)
            # Of several batches only the last picture of each is shown.
            made += batch if batches == 1 else batch[-1:]
            if not batch:
                break
            started = started.model_copy(update={"seed": batch[-1].info.job.seeds[0] + 1})
        if not made:
            return ScriptResult([], [], await run.outline(asked))
        strength = asked.denoising_strength
        return await anyio.to_thread.run_sync(_answer, run, args, made, strength)

    async def _batch(
        self, run: ScriptRun, args: LoopbackArgs, started: Img2ImgRequest
    ) -> list[Generated]:
        """One chain of pictures, from the init images on."""

        def keys(own: dict[str, Any]) -> dict[str, Any]:
            final = {"Final denoising strength": args.final_strength}
            return {**final, "Denoising curve": args.curve, **own}

        first = await opaque_first_picture(run, started)
        request, made = started, list[Generated]()
        for i in range(args.loops):
            if run.is_interrupted:
                break
            update: dict[str, Any] = {
                **{"n_iter": 1, "batch_size": 1, "do_not_save_grid": True},
                "denoising_strength": strength_at(i, args, started.denoising_strength),
                "prompt": await _prompt(run, args, started, first_picture(request)),
            }
            request = request.model_copy(update=update)
            generated = await run.generate(request, keys=keys, colours=first)
            if not generated.images:
                break
            made.append(generated)
            if run.is_skipped:
                break
            update = {
                "init_images": [generated.images[0]],
                "seed": generated.info.job.seeds[0] + 1,
                "inpainting_fill": _ORIGINAL,
            }
            request = request.model_copy(update=update)
        return made


def strength_at(loop: int, args: LoopbackArgs, first: float) -> float:
    """The denoising strength of an iteration, from 0."""
    if args.loops == 1:
        return first
    share = _CURVES[args.curve](loop / (args.loops - 1))
    return first + (args.final_strength - first) * share


async def _prompt(
    run: ScriptRun, args: LoopbackArgs, started: Img2ImgRequest, picture: Image.Image
) -> str:
    """The request's prompt, and what an interrogator sees in a picture."""
    prompt = started.prompt or ""
    if args.interrogate == "None":
        return prompt
    model = _INTERROGATORS[args.interrogate]
    caption = await run.services.interrogators.describe_begun(picture, model, run.options)
    return f"{prompt}, {caption}" if prompt else caption


def _answer(
    run: ScriptRun, args: LoopbackArgs, made: list[Generated], strength: float
) -> ScriptResult:
    """The pictures, with a strip of them. Blocks."""
    pictures = [each.pictures[0] for each in made]
    files: list[ScriptFile] = []
    if len(made) > 1:
        grid = grid_of([each.image for each in pictures], run.options, rows=1)
        files.append(ScriptFile(grid, made[0].infotext(), is_grid=True, prefix=GRID_PREFIX))
        if run.options.flag("return_grid"):
            pictures.insert(0, ScriptPicture(grid, is_grid=True))
    # The echo shows one iteration further than was drawn, as the reference's does.
    shown = strength_at(args.loops, args, strength)
    last = made[-1].info
    return told_by_first(made[0], last, pictures, files, denoising_strength=shown)
