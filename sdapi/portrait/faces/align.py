"""Pictures made smaller, squares cut out of them and turned upright: what networks want to see."""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.portrait.faces.face import USUAL, Pixels, Points

#: the longer side at which faces are embedded
WORKING_SIDE: Final = USUAL.side
#: where ArcFace and its kin expect eyes, nose and mouth corners in 112 x 112 pixels
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]],
    np.float32,
)  # fmt: skip


def shrink(rgb: Pixels, long_side: int) -> tuple[Pixels, float]:
    """The picture no longer than `long_side`, and its scale; small ones stay as they are."""
    height, width = rgb.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1.0:
        return np.ascontiguousarray(rgb), 1.0
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small, np.uint8), scale


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square of a picture, and the way back from its pixels to the picture's."""

    rgb: Pixels
    to_crop: NDArray[np.float64]  # [2, 3], picture -> crop

    def back(self, points: Points) -> Points:
        """Points of the crop in the picture."""
        return move(points, np.asarray(cv2.invertAffineTransform(self.to_crop), np.float64))


def move(points: Points, transform: NDArray[np.float64]) -> Points:
    """Points through an affine transform [2, 3]."""
    moved = points.astype(np.float64) @ transform[:, :2].T + transform[:, 2]
    return moved.astype(np.float32)


def eye_angle(eyes: Points) -> float:
    """The slope of the line from the left eye to the right one, in degrees."""
    across = eyes[1] - eyes[0]
    return float(np.degrees(np.arctan2(across[1], across[0])))


def level_square(
    rgb: Pixels, centre: tuple[float, float], side: float, angle: float, size: int
) -> Crop:
    """The square around `centre`, turned by `angle` degrees so that the eyes get level."""
    scale = size / max(side, 1.0)
    turn = np.asarray(cv2.getRotationMatrix2D(centre, angle, scale), np.float64)
    turn[:, 2] += size / 2 - np.asarray(centre)
    return Crop(_warp(rgb, turn, size), turn)


def arcface_square(rgb: Pixels, points5: Points) -> Pixels:
    """112 x 112 with eyes, nose and mouth where ArcFace, SFace and their kin learnt them."""
    found: Any = cv2.estimateAffinePartial2D(points5, ARCFACE_POINTS, method=cv2.LMEDS)[0]
    if found is None:
        found = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return _warp(rgb, np.asarray(found, np.float64), 112)


def five_of(points68: Points) -> Points:
    """Eyes, nose tip and mouth corners, [5, 2], the left ones first."""
    eyes = [points68[36:42].mean(axis=0), points68[42:48].mean(axis=0)]
    return np.stack([*eyes, points68[30], points68[48], points68[54]]).astype(np.float32)


def _warp(rgb: Pixels, transform: NDArray[np.float64], size: int) -> Pixels:
    warped = cv2.warpAffine(rgb, transform, (size, size), flags=cv2.INTER_LINEAR)
    return np.ascontiguousarray(warped, np.uint8)
