"""Always-on scripts of the webui that stand for fields of the request; listed after all others.

Contract: webui-scripts 14.
"""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel

from sdapi.engine.sampling.sampler_names import SAMPLERS, SCHEDULERS
from sdapi.extensions import hookimpl
from sdapi.services.scripts.arguments import Arg
from sdapi.services.scripts.script import Script

if TYPE_CHECKING:
    from sdapi.services.container import Services


def _checkpoint_titles(services: "Services") -> list[str]:
    return [checkpoint.title for checkpoint in services.catalog.checkpoints]


class RefinerArgs(BaseModel):
    """Without effect in the API; `refiner_checkpoint` and `refiner_switch_at` act."""

    enabled: Annotated[Any, Arg("Refiner")] = False
    checkpoint: Annotated[Any, Arg("Checkpoint", choices=_checkpoint_titles)] = ""
    switch_at: Annotated[Any, Arg("Switch at", 0.01, 1.0, 0.01)] = 0.8


class Refiner(Script):
    """Accepted; the request's own fields act."""

    name = "Refiner"
    args = RefinerArgs


class SamplerArgs(BaseModel):
    """Without effect in the API; `steps`, `sampler_name` and `scheduler` act."""

    steps: Annotated[Any, Arg("Sampling steps", 1, 150, 1)] = 20
    sampler: Annotated[Any, Arg("Sampling method", choices=[s.name for s in SAMPLERS])] = SAMPLERS[
        0
    ].name
    scheduler: Annotated[Any, Arg("Schedule type", choices=[s.label for s in SCHEDULERS])] = (
        "Automatic"
    )


class Sampler(Script):
    """Accepted; the request's own fields act."""

    name = "Sampler"
    args = SamplerArgs


class SeedArgs(BaseModel):
    """Without effect in the API; `seed`, `subseed` and their kin act."""

    seed: Annotated[Any, Arg("Seed", step=1)] = -1
    extra: Annotated[Any, Arg("Extra")] = False
    variation_seed: Annotated[Any, Arg("Variation seed", step=1)] = -1
    variation_strength: Annotated[Any, Arg("Variation strength", 0, 1, 0.01)] = 0.0
    resize_width: Annotated[Any, Arg("Resize seed from width", 0, 2048, 8)] = 0
    resize_height: Annotated[Any, Arg("Resize seed from height", 0, 2048, 8)] = 0


class Seed(Script):
    """Accepted; the request's own fields act."""

    name = "Seed"
    args = SeedArgs


@hookimpl
def sdapi_scripts() -> list[Script]:
    """In the webui's order."""
    return [Refiner(), Sampler(), Seed()]
