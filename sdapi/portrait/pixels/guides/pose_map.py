"""Landmarks as a ControlNet's openpose picture: the face's part of it, white discs on black.

Contract: portrait-pipeline 3.5. Body and hands are absent, which matters little in a crop of three
faces' width; with it no estimator of poses is needed.
"""

import cv2
import numpy as np

from sdapi.portrait.faces.face import Pixels, Points
from sdapi.portrait.faces.pose import eye_centres

#: pixels, to be scaled
_RADIUS = 3.0
_SHIFT = 4  # OpenCV's fixed point: sixteenths of a pixel


def pose_map(points68: Points, size: tuple[int, int], scale: float) -> Pixels:
    """The picture of one face; `size` is (height, width), and `scale` that of a `Target`."""
    picture = np.zeros((*size, 3), np.uint8)
    radius = max(_RADIUS * scale, 1.0)
    for x, y in np.concatenate([points68, eye_centres(points68)]) * 2**_SHIFT:
        centre = (round(float(x)), round(float(y)))
        cv2.circle(
            picture, centre, round(radius * 2**_SHIFT), (255, 255, 255), -1, cv2.LINE_AA, _SHIFT
        )
    return picture
