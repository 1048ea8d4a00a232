"""img2img alternative test: draws from the noise behind the init picture (contract: scripts 9)."""

from dataclasses import replace
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from sdapi.engine.jobs.init_images import Inversion
from sdapi.engine.jobs.job import Job
from sdapi.extensions.scripts.selectable.heading import HEADING, Heading
from sdapi.schemas.coercion import Bool, Int, Str
from sdapi.services.scripts.arguments import Arg
from sdapi.services.scripts.script import (
    IMG2IMG_ONLY,
    ScriptResult,
    ScriptRun,
    SelectableScript,
)

_MAX_STEPS: Final = 10_000
_MAX_CFG: Final = 100_000


class AlternativeTestArgs(BaseModel):
    """As the webui's; the first is a heading."""

    info: Heading = HEADING
    override_sampler: Annotated[
        Bool, Arg("Override `Sampling method` to Euler?(this method is built for it)")
    ] = True
    override_prompt: Annotated[
        Bool,
        Arg(
            "Override `prompt` to the same value as `original prompt`?(and `negative prompt`)",
        ),
    ] = True
    original_prompt: Annotated[Str, Arg("Original prompt"), Field(max_length=30_000)] = ""
    original_negative_prompt: Annotated[
        Str, Arg("Original negative prompt"), Field(max_length=30_000)
    ] = ""
    override_steps: Annotated[
        Bool, Arg("Override `Sampling Steps` to the same value as `Decode steps`?")
    ] = True
    decode_steps: Annotated[Int, Arg("Decode steps", 1, 150, 1), Field(ge=1, le=_MAX_STEPS)] = 50
    override_strength: Annotated[Bool, Arg("Override `Denoising strength` to 1?")] = True
    decode_cfg_scale: Annotated[
        int | float, Arg("Decode CFG scale", 0.0, 15.0, 0.1), Field(ge=-_MAX_CFG, le=_MAX_CFG)
    ] = 1.0
    randomness: Annotated[int | float, Arg("Randomness", 0.0, 1.0, 0.01), Field(ge=-10, le=10)] = (
        0.0
    )
    sigma_adjustment: Annotated[Bool, Arg("Sigma adjustment for finding noise for image")] = False


class AlternativeTest(SelectableScript):
    """Finds the noise that would have made the init picture."""

    name = "img2img alternative test"
    kinds = IMG2IMG_ONLY
    args = AlternativeTestArgs

    async def run(self, run: ScriptRun, args: AlternativeTestArgs) -> ScriptResult:
        update: dict[str, Any] = {}
        if args.override_sampler:
            update["sampler_name"] = "Euler"
        if args.override_prompt:
            update["prompt"] = args.original_prompt
            update["negative_prompt"] = args.original_negative_prompt
        if args.override_steps:
            update["steps"] = args.decode_steps
        if args.override_strength:
            update["denoising_strength"] = 1.0
        inversion = Inversion(
            prompt=args.original_prompt,
            negative_prompt=args.original_negative_prompt,
            steps=args.decode_steps,
            cfg_scale=args.decode_cfg_scale,
            randomness=args.randomness,
            adjusts_sigma=args.sigma_adjustment,
        )

        def change(job: Job) -> Job:
            assert job.init is not None
            return replace(job, init=replace(job.init, inversion=inversion))

        request = run.request.model_copy(update=update)
        generated = await run.generate(request, change=change, keys=lambda own: _keys(args) | own)
        return generated.answer()


def _keys(args: AlternativeTestArgs) -> dict[str, Any]:
    return {
        "Decode prompt": args.original_prompt,
        "Decode negative prompt": args.original_negative_prompt,
        "Decode CFG scale": args.decode_cfg_scale,
        "Decode steps": args.decode_steps,
        "Randomness": args.randomness,
        "Sigma Adjustment": args.sigma_adjustment,
    }
