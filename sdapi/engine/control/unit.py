"""One ControlNet unit of a job: everything its effect depends on, resolved (contract: 2 and 6)."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from sdapi.engine.weights.model_file import ModelFile

#: a picture, RGB or RGB and mask: [h, w, 3 or 4]
Pixels = NDArray[np.uint8]
#: the kinds of maps that union models know, by their numbers there
UNION_TYPES = (
    "OpenPose",
    "Depth",
    "Soft Edge",
    "Hard Edge",
    "Normal Map",
    "Segmentation",
    "Tile",
    "Inpaint",
)


class ControlMode(Enum):
    """Which of prompt and control gives way."""

    BALANCED = "Balanced"
    PROMPT = "My prompt is more important"
    CONTROL = "ControlNet is more important"


class HiresUse(Enum):
    """In which passes of hires fix a unit acts."""

    BOTH = "Both"
    FIRST = "Low res only"
    SECOND = "High res only"


@dataclass(frozen=True, slots=True)
class ControlUnit:
    """A unit; what belongs to one kind of control only has a default that says nothing."""

    #: how errors call it: "ControlNet unit 0"
    label: str
    #: the preprocessor's name, never its label
    module: str
    #: None for modules that need none (`reference_*`)
    model: ModelFile | None
    #: the detected map, at the size of the first pass
    hint: Pixels
    #: and of the second pass of hires fix
    second_hint: Pixels | None = None
    #: what the unit was given, at its own size, for models that embed pictures as a whole
    pictures: tuple[Pixels, ...] = ()
    #: what looks at those pictures for an IP-Adapter
    encoder: ModelFile | None = None
    weight: float = 1.0
    mode: ControlMode = ControlMode.BALANCED
    #: one factor for each residual, in place of the weight
    advanced: tuple[float, ...] | None = None
    #: shares of the steps between which it acts
    start: float = 0.0
    end: float = 1.0
    hires_use: HiresUse = HiresUse.BOTH
    #: sliders, after defaults
    threshold_a: float = 0.5
    threshold_b: float = 0.5
    #: where it acts, 0 to 1 [h, w]; None: everywhere
    region: NDArray[np.float32] | None = None
    #: the kind of its map for union models, a place in `UNION_TYPES`; None where nothing tells
    union_type: int | None = None
    #: pixels by which `inpaint_only` softens the edge of what it keeps
    edge: int = 7

    def hint_for(self, *, is_second_pass: bool) -> Pixels:
        """The detected map of a pass."""
        if is_second_pass and self.second_hint is not None:
            return self.second_hint
        return self.hint

    def acts_in(self, *, is_second_pass: bool) -> bool:
        """Whether it takes part in a pass of hires fix."""
        other = HiresUse.FIRST if is_second_pass else HiresUse.SECOND
        return self.hires_use is not other
