"""What this server has: checkpoints, VAEs, samplers, schedulers."""

import anyio.to_thread
from fastapi import APIRouter

from sdapi.engine.sampling.sampler_names import SAMPLERS, SCHEDULERS
from sdapi.routes import ServicesDep
from sdapi.schemas.catalog import (
    PromptStyleItem,
    SamplerItem,
    SchedulerItem,
    SDModelItem,
    SDVaeItem,
)
from sdapi.services.catalog.styles import listed_styles

router = APIRouter(prefix="/sdapi/v1", tags=["catalog"])


@router.get("/sd-models")
async def sd_models(services: ServicesDep) -> list[SDModelItem]:
    """The checkpoints; hashes appear once they have been computed."""
    checkpoints = await anyio.to_thread.run_sync(lambda: services.catalog.checkpoints)
    return [
        SDModelItem(
            title=c.title,
            model_name=c.model_name,
            hash=c.shorthash,
            sha256=c.sha256,
            filename=str(c.path),
            config=str(c.sidecar) if c.sidecar else None,
        )
        for c in checkpoints
    ]


@router.get("/sd-vae")
async def sd_vae(services: ServicesDep) -> list[SDVaeItem]:
    """The VAEs that are files of their own."""
    return [SDVaeItem(model_name=v.name, filename=str(v.path)) for v in services.catalog.vaes]


@router.get("/samplers")
async def samplers() -> list[SamplerItem]:
    """The samplers, in the webui's order."""
    return [SamplerItem(name=s.name, aliases=list(s.aliases), options=s.options) for s in SAMPLERS]


@router.get("/schedulers")
async def schedulers() -> list[SchedulerItem]:
    """The sigma schedules, in the webui's order."""
    return [
        SchedulerItem(
            name=s.name,
            label=s.label,
            aliases=list(s.aliases) if s.aliases else None,
            default_rho=s.default_rho,
            need_inner_model=s.needs_model,
        )
        for s in SCHEDULERS
    ]


@router.post("/refresh-checkpoints")
async def refresh_checkpoints(services: ServicesDep) -> None:
    """Look for checkpoints and VAEs on disk again."""
    await anyio.to_thread.run_sync(services.catalog.refresh)


@router.post("/refresh-vae")
async def refresh_vae(services: ServicesDep) -> None:
    """Look for checkpoints and VAEs on disk again."""
    await anyio.to_thread.run_sync(services.catalog.refresh)


@router.get("/prompt-styles")
async def prompt_styles(services: ServicesDep) -> list[PromptStyleItem]:
    """The styles of `styles.csv`; with several files each begins with a row of its name."""
    files = services.settings.styles_files
    return [
        PromptStyleItem(name=name, prompt=prompt, negative_prompt=negative)
        for name, prompt, negative in await anyio.to_thread.run_sync(listed_styles, files)
    ]
