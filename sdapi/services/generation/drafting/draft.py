"""A job with what its answer needs besides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdapi.engine.jobs.job import Job
from sdapi.services.catalog.catalog import Checkpoint, VAEFile
from sdapi.services.catalog.networks import Lora
from sdapi.services.generation.pictures.img2img import PreparedInit


@dataclass(frozen=True, slots=True)
class Draft:
    """A job with what its answer needs besides."""

    job: Job
    checkpoint: Checkpoint
    vae: VAEFile | None
    styles: tuple[str, ...]
    #: the texts that those put into the prompt
    style_prompts: tuple[str, ...]
    warnings: tuple[str, ...]
    #: infotext keys that are known before anything is drawn, in order
    keys: dict[str, Any]
    #: the files of the LoRAs that prompts name, by the names they have there
    loras: Mapping[str, Lora] = field(default_factory=dict[str, Lora])
    #: img2img's beginning and end
    prepared: PreparedInit | None = None
    refiner: Checkpoint | None = None
