"""Faces as MediaPipe draws them: outlines of face, eyes, brows and lips, in a colour each."""

from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np

from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.engine.control.annotators.face_finder import FaceMesh

#: smaller faces are left out, pixels
_SMALLEST: Final = 64
_THICKNESS: Final = 2
#: half of the side of the square that stands for a pupil, pixels
_PUPIL: Final = 2

_OVAL: Final = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10,
)  # fmt: skip
_LIPS: Final = (
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
)
_LEFT_EYE: Final = (
    (263, 249, 390, 373, 374, 380, 381, 382, 362),
    (263, 466, 388, 387, 386, 385, 384, 398, 362),
)
_RIGHT_EYE: Final = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133),
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
)
_LEFT_BROW: Final = ((276, 283, 282, 295, 285), (300, 293, 334, 296, 336))
_RIGHT_BROW: Final = ((46, 53, 52, 65, 55), (70, 63, 105, 66, 107))
#: lines through numbered points, and their colour, red first; "left" is the person's
_LINES: Final = (
    ((_OVAL,), (10, 200, 10)),
    (_LEFT_EYE, (10, 200, 180)),
    (_LEFT_BROW, (10, 220, 180)),
    (_RIGHT_EYE, (180, 200, 10)),
    (_RIGHT_BROW, (180, 220, 10)),
    (_LIPS, (10, 180, 10)),
)
_PUPILS: Final = ((_LEFT_EYE, (10, 200, 250)), (_RIGHT_EYE, (250, 200, 10)))


def draw_faces(
    meshes: Iterable[FaceMesh], height: int, width: int, *, most: int, least_confidence: float
) -> Pixels:
    """The surest faces on black [H, W, 3]."""
    canvas = np.zeros((height, width, 3), np.uint8)
    sure = [each for each in meshes if each.confidence >= least_confidence and _is_large(each)]
    for mesh in sorted(sure, key=lambda mesh: -mesh.confidence)[:most]:
        points = mesh.points.astype(np.int32)
        for chains, colour in _LINES:
            lines = [points[list(chain)].reshape(-1, 1, 2) for chain in chains]
            cv2.polylines(canvas, lines, False, colour, _THICKNESS)
        for chains, colour in _PUPILS:
            # The mesh without irises has none: the middle of the eye stands for it.
            around = mesh.points[list({point for chain in chains for point in chain})]
            x, y = (int(value) for value in around.mean(axis=0))
            rows = slice(max(y - _PUPIL, 0), max(y + _PUPIL, 0))
            canvas[rows, max(x - _PUPIL, 0) : max(x + _PUPIL, 0)] = colour
    return canvas


def _is_large(mesh: FaceMesh) -> bool:
    return float(np.ptp(mesh.points, axis=0).min()) >= _SMALLEST
