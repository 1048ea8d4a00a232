"""Whoever finds faces for the annotators."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sdapi.engine.control.annotators.detected_map import Pixels


@dataclass(frozen=True, slots=True, eq=False)
class FaceMesh:
    """One face."""

    #: pixels, x before y [468, 2]
    points: NDArray[np.float32]
    #: 0 to 1
    confidence: float


class FaceFinder(Protocol):
    """Finds faces and their points; the server's portrait part is one."""

    def meshes(self, rgb: Pixels) -> Sequence[FaceMesh]:
        """Every face of a picture [H, W, 3]; blocks.

        Raises `AnnotatorMissing` naming the file that is needed, `BadRequest` for a picture that
        could not be looked at.
        """
        ...
