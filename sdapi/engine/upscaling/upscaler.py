"""An upscaler as a job names it: a filter, or a model file with the tiles it works in."""

from dataclasses import dataclass
from enum import StrEnum

from sdapi.engine.weights.model_file import ModelFile


class Filter(StrEnum):
    """Upscalers that need no model."""

    NONE = "None"
    LANCZOS = "Lanczos"
    NEAREST = "Nearest"


@dataclass(frozen=True, slots=True)
class Tiles:
    """The pieces that a model sees of a picture, pixels; size 0 is the whole picture."""

    size: int = 0
    overlap: int = 0
    #: what tiles share is their mean, in place of a ramp from one to the next
    averages: bool = False


@dataclass(frozen=True, slots=True)
class ModelUpscaler:
    """A model file of one of the architectures that spandrel knows."""

    name: str
    file: ModelFile
    tiles: Tiles = Tiles()
    #: run in half precision where the device does and the architecture can
    prefers_half: bool = False


#: What enlarges a picture.
Upscaler = Filter | ModelUpscaler
