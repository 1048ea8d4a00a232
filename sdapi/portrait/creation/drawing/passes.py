"""What one pass of drawing is asked, whoever draws it."""

import re
from dataclasses import dataclass
from typing import Final

from sdapi.portrait.faces.face import Mask, Pixels

CFG_SCALE: Final = 7.0
LCM_CFG_SCALE: Final = 2.0
SAMPLER: Final = ("DPM++ 2M SDE", "Karras")
EULER_A: Final = ("Euler a", "Automatic")
#: pixels, to be scaled as `Target.scale` says
MASK_BLUR: Final = 8
#: how a warning begins that a LoRA did not act
_UNUSED: Final = ("lora not found", "lora not used")
#: what a warning says of a LoRA all of whose layers are of another checkpoint's shapes
_MISFIT: Final = re.compile(r"(\d+) of its \1 layers do not fit")


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """A ControlNet unit: a model, what makes its picture, and the picture that is made from."""

    module: str
    model: str
    weight: float
    rgb: Pixels
    mode: str = "My prompt is more important"


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One picture to be drawn; from `rgb`, or from noise where that is None."""

    prompt: str
    negative: str
    #: (width, height)
    size: tuple[int, int]
    steps: int
    #: how much of `rgb` is drawn anew, 0 to 1
    strength: float = 1.0
    rgb: Pixels | None = None
    #: where it is drawn anew; None for everywhere
    mask: Mask | None = None
    mask_blur: int = 0
    units: tuple[Unit, ...] = ()
    cfg_scale: float = CFG_SCALE
    sampler: tuple[str, str] = SAMPLER
    seed: int = -1
    #: the checkpoint's name; None for whichever the drawing server uses
    checkpoint: str | None = None
    #: LoRAs of the prompt without which the picture is of somebody else
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A drawn picture and what was done otherwise than asked."""

    rgb: Pixels
    warnings: tuple[str, ...] = ()

    def lost(self, needs: tuple[str, ...]) -> str | None:
        """The warning that one of these LoRAs did not act; None where all did.

        Warnings name a LoRA as its tag does, or by its file.
        """
        files = tuple(f"{name.rpartition('/')[2]}.safetensors:" for name in needs)
        tags = tuple(f"{name} " for name in needs)
        misfits = tuple(f"lora {name}" for name in needs)
        for warning in self.warnings:
            begin, _, rest = warning.partition(": ")
            is_unused = begin in _UNUSED and f"{rest} ".startswith((*tags, *files))
            if is_unused or (begin in misfits and _MISFIT.fullmatch(rest)):
                return warning
        return None
