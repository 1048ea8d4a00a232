"""Matting without a network: GrabCut, told where head and shoulders usually are."""

from importlib.metadata import version
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.portrait.faces.align import shrink
from sdapi.portrait.faces.face import About, Face, Mask, Pixels
from sdapi.portrait.faces.pose import CHIN

_SIDE: Final = 384
_ROUNDS: Final = 4
_SOFTNESS_PX: Final = 2.0


class GrabCutMatting:
    """Agrees with a network on plain portraits; less where hats, large hair or plants are."""

    @property
    def about(self) -> About:
        return About("grabcut", version("opencv-python-headless"), "Apache-2.0")

    def alpha(self, rgb: Pixels, face: Face) -> Mask:
        small, scale = shrink(rgb, _SIDE)
        labels, seed = _prior(small, face, scale)
        if not _is_person(labels).all():  # of a close-up that leaves no background all is person
            _refine(small, labels)
        person = _is_person(labels).astype(np.uint8)
        _, parts = cv2.connectedComponents(person)
        own = (parts == parts[seed[1], seed[0]]).astype(np.uint8)
        closed = cv2.morphologyEx(own, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        size = (rgb.shape[1], rgb.shape[0])
        mask = cv2.resize(closed.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        soft = cv2.GaussianBlur(mask, (0, 0), _SOFTNESS_PX)
        return np.clip(np.asarray(soft, np.float32), 0.0, 1.0)


def _refine(small: Pixels, labels: Pixels) -> None:
    """Let the colours decide what the labels only suppose; both classes must be there."""
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    whole = (0, 0, small.shape[1], small.shape[0])  # unused: the mask says where to begin
    cv2.grabCut(small, labels, whole, background, foreground, _ROUNDS, cv2.GC_INIT_WITH_MASK)


def _is_person(labels: Pixels) -> NDArray[np.bool_]:
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _prior(small: Pixels, face: Face, scale: float) -> tuple[Pixels, tuple[int, int]]:
    """What surely and what probably is person; and a pixel in the middle of the face."""
    height, width = small.shape[:2]
    left, top, right, bottom = (side * scale for side in face.box)
    chin = bottom if face.points68 is None else float(face.points68[CHIN, 1]) * scale
    x, y, wide = (left + right) / 2, (top + bottom) / 2, right - left
    labels = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    rows, columns = np.mgrid[:height, :width]
    beside = (np.abs(columns - x) > 1.6 * wide) & (rows < chin)
    labels[beside | (rows < y - 1.6 * wide)] = cv2.GC_BGD
    _wedge(labels, x, (0.6 * wide, chin), (1.8 * wide, height), cv2.GC_PR_FGD)
    _disc(labels, (x, y), (0.95 * wide, 1.25 * wide), cv2.GC_PR_FGD)
    _disc(labels, (x, y), (0.4 * wide, 0.5 * wide), cv2.GC_FGD)
    _wedge(labels, x, (0.2 * wide, y), (0.5 * wide, height), cv2.GC_FGD)
    seed = (int(np.clip(x, 0, width - 1)), int(np.clip(y, 0, height - 1)))
    labels[seed[1], seed[0]] = cv2.GC_FGD
    return labels, seed


def _wedge(
    labels: Pixels, x: float, upper: tuple[float, float], lower: tuple[float, float], value: int
) -> None:
    """Neck and shoulders: symmetric about `x`, each end a half-width and a row."""
    (a, top), (b, bottom) = upper, lower
    corners = [(x - a, top), (x + a, top), (x + b, bottom), (x - b, bottom)]
    cv2.fillConvexPoly(labels, np.array(corners, np.int32), value)


def _disc(
    labels: Pixels, centre: tuple[float, float], radii: tuple[float, float], value: int
) -> None:
    at, size = (round(centre[0]), round(centre[1])), (round(radii[0]), round(radii[1]))
    cv2.ellipse(labels, at, size, 0, 0, 360, value, -1)
