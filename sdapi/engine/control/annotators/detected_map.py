"""What a preprocessor or annotator makes of a picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: [H, W, 3] red first, or [H, W, 4] with a mask behind it
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DetectedMap:
    """A map, and what else was seen."""

    #: [H, W, 3], or [H, W, 4] where a mask was required
    pixels: Pixels
    #: what an openpose preprocessor saw, in OpenPose's JSON form
    poses: dict[str, Any] | None = None
