"""Plug-ins whose files OpenCV itself runs: YuNet finds faces, SFace compares them."""

from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np

from sdapi.portrait.faces.align import arcface_square, five_of, shrink
from sdapi.portrait.faces.face import (
    USUAL,
    About,
    Embedding,
    Face,
    FaceError,
    Look,
    Pixels,
    from_left_to_right,
)

_LEAST_SCORE: Final = 0.7
#: OpenCV's own figure: a cosine of 0.363 or more is one person
_SAME_COSINE: Final = 0.363


class YuNetDetector:
    """Small, fast, and good with turned heads."""

    def __init__(self, path: Path) -> None:
        self._network: Any = cv2.FaceDetectorYN.create(
            str(path), "", (320, 320), _LEAST_SCORE, 0.3, 200
        )
        self._name = path.stem

    @property
    def about(self) -> About:
        return About("yunet", self._name, "MIT")

    def detect(self, rgb: Pixels, look: Look = USUAL) -> list[Face]:
        small, scale = shrink(rgb, look.side)
        self._network.setInputSize((small.shape[1], small.shape[0]))
        _, rows = self._network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        return from_left_to_right([_face(row, scale) for row in ([] if rows is None else rows)])


class SFaceEmbedder:
    """128 numbers, compared by their cosine."""

    metric: Literal["l2", "cosine"] = "cosine"
    same = 1.0 - _SAME_COSINE

    def __init__(self, path: Path) -> None:
        self._network: Any = cv2.FaceRecognizerSF.create(str(path), "")
        self._name = path.stem

    @property
    def about(self) -> About:
        return About("sface", self._name, "Apache-2.0")

    def embed(self, rgb: Pixels, face: Face) -> Embedding:
        if face.points68 is None:
            raise FaceError("the face has no points to align it by")
        square = arcface_square(rgb, five_of(face.points68))
        vector = self._network.feature(cv2.cvtColor(square, cv2.COLOR_RGB2BGR))
        return checked(vector)


def checked(vector: Any) -> Embedding:
    """A network's answer as a vector of length one; raises FaceError when it is none."""
    flat = np.asarray(vector, np.float32).reshape(-1)
    length = float(np.linalg.norm(flat))
    if not np.isfinite(length) or length == 0.0:
        raise FaceError("the embedding is empty")
    return flat / np.float32(length)


def _face(row: Any, scale: float) -> Face:
    """A row of YuNet's: x, y, width, height, five points, score."""
    values = np.asarray(row, np.float64)
    left, top, width, height = (values[:4] / scale).tolist()
    eyes = (values[4:8] / scale).reshape(2, 2).astype(np.float32)
    return Face((left, top, left + width, top + height), float(values[14]), eyes)
