"""Where a rendered face's features are: landmarks that need not be found."""

import numpy as np
from numpy.typing import NDArray

from tools.demo_model.pictures.head import mouth_height, surface_point
from tools.demo_model.pictures.person import Identity, View

Points = NDArray[np.float64]  # [13, 2] x and y in pixels
LEFT_EYE, RIGHT_EYE, NOSE, MOUTH = 0, 1, 6, 11


def true_landmarks(who: Identity, view: View, size: int) -> Points:
    """Eyes, their corners, nose, nostrils, corners and middle of the mouth, chin, in pixels."""
    eye, half, line = who.eye_spread, who.eye_size, who.eye_line
    tip = line + who.nose_length
    corner = who.mouth_width * (1.0 + 0.15 * view.smile)
    corner_y = float(mouth_height(np.float32(corner), who, view.smile))
    on_head = [(-eye, line), (eye, line)]
    on_head += [(-eye - half, line), (-eye + half, line), (eye - half, line), (eye + half, line)]
    on_head += [(0.0, tip), (-who.nose_width, tip), (who.nose_width, tip)]
    on_head += [(-corner, corner_y), (corner, corner_y), (0.0, who.mouth_line), (0.0, 0.95)]
    seen = np.array([surface_point(x, y, who, view) for x, y in on_head])
    return (np.asarray(view.centre) + seen * view.scale + 1.0) / 2.0 * size - 0.5


def eye_distance(points: Points) -> float:
    """The usual yardstick for errors of landmarks."""
    return float(np.linalg.norm(points[LEFT_EYE] - points[RIGHT_EYE]))
