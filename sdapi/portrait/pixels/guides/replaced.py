"""One face laid over another by their eyes, nose and mouth corners: the source of a pose.

Contract: portrait-pipeline 3.3.
"""

from typing import Any

import cv2
import numpy as np

from sdapi.portrait.faces.align import five_of, move
from sdapi.portrait.faces.face import Face, FaceError, Points


def replaced_points(face: Face, other: Face) -> Points:
    """The landmarks of `other`, [68, 2], where `face` is: its shape in this pose's place."""
    if face.points68 is None or other.points68 is None:
        raise FaceError("a face has no landmarks")
    found: Any = cv2.estimateAffinePartial2D(
        five_of(other.points68), five_of(face.points68), method=cv2.LMEDS
    )[0]
    if found is None:
        raise FaceError("one face cannot be laid over the other")
    return move(other.points68, np.asarray(found, np.float64))
