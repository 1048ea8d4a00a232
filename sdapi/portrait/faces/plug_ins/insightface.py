"""Plug-ins in InsightFace's formats: SCRFD finds faces, ArcFace compares them.

Their usual files are for non-commercial research only; the operator brings them. OpenCV runs them,
so no further package is needed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.portrait.faces.align import arcface_square, five_of
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
from sdapi.portrait.faces.plug_ins.opencv_zoo import checked

Array = NDArray[np.float32]
#: a picture's blob in, every output out
Network = Callable[[Array], Sequence[Array]]

_LICENCE: Final = "non-commercial research (InsightFace's packs)"
_SIDE: Final = 640
_STRIDES: Final = (8, 16, 32)
_ANCHORS: Final = 2
_LEAST_SCORE: Final = 0.5
_OVERLAP: Final = 0.4
_SAME_COSINE: Final = 0.35


class ScrfdDetector:
    """SCRFD with key points (`scrfd_*_bnkps.onnx`, `det_*.onnx`)."""

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._name = name

    @classmethod
    def load(cls, path: Path) -> "ScrfdDetector":
        return cls(load_network(path), path.stem)

    @property
    def about(self) -> About:
        return About("scrfd", self._name, _LICENCE)

    def detect(self, rgb: Pixels, look: Look = USUAL) -> list[Face]:
        """Always at 640 pixels, which many of these files are fixed to: from 16 of them on."""
        del look
        height, width = rgb.shape[:2]
        scale = _SIDE / max(height, width)
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        canvas = np.zeros((_SIDE, _SIDE, 3), np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        blob = np.asarray(cv2.dnn.blobFromImage(canvas, 1 / 128.0, mean=(127.5,) * 3), np.float32)
        return from_left_to_right(_faces(self._network(blob), scale))


class ArcFaceEmbedder:
    """512 numbers, compared by their cosine (`glintr100.onnx`, `w600k_*.onnx`)."""

    metric: Literal["l2", "cosine"] = "cosine"
    same = 1.0 - _SAME_COSINE

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._name = name

    @classmethod
    def load(cls, path: Path) -> "ArcFaceEmbedder":
        return cls(load_network(path), path.stem)

    @property
    def about(self) -> About:
        return About("arcface", self._name, _LICENCE)

    def embed(self, rgb: Pixels, face: Face) -> Embedding:
        if face.points68 is None:
            raise FaceError("the face has no points to align it by")
        square = arcface_square(rgb, five_of(face.points68))
        blob = np.asarray(cv2.dnn.blobFromImage(square, 1 / 127.5, mean=(127.5,) * 3), np.float32)
        return checked(self._network(blob)[0])


def load_network(path: Path) -> Network:
    """An ONNX file as a function."""
    network: Any = cv2.dnn.readNetFromONNX(str(path))
    names = network.getUnconnectedOutLayersNames()

    def run(blob: Array) -> Sequence[Array]:
        network.setInput(blob)
        return [np.asarray(output, np.float32) for output in network.forward(names)]

    return run


def _faces(outputs: Sequence[Array], scale: float) -> list[Face]:
    """Decode scores, boxes and points, told apart by their widths, strides by their lengths."""
    by_width: dict[int, list[Array]] = {1: [], 4: [], 10: []}
    for output in outputs:
        flat = output.reshape(-1, output.shape[-1])
        if flat.shape[1] not in by_width:
            raise FaceError(f"not an SCRFD network with key points: output {output.shape}")
        by_width[flat.shape[1]].append(flat)
    levels = [sorted(found, key=len, reverse=True) for found in by_width.values()]
    if any(len(level) != len(_STRIDES) for level in levels):
        raise FaceError("not an SCRFD network with key points: it needs nine outputs")
    scores: list[float] = []
    boxes: list[list[float]] = []
    eyes: list[Array] = []
    for stride, score, box, points in zip(_STRIDES, *levels, strict=True):
        centres = _centres(stride)
        for i in np.flatnonzero(score[:, 0] >= _LEAST_SCORE):
            x, y = centres[i]
            left, top, right, bottom = (box[i] * stride).tolist()
            scores.append(float(score[i, 0]))
            boxes.append([x - left, y - top, left + right, top + bottom])
            eyes.append((points[i, :4] * stride).reshape(2, 2) + centres[i])
    kept = cv2.dnn.NMSBoxes(boxes, scores, _LEAST_SCORE, _OVERLAP) if boxes else []
    return [_face(boxes[i], scores[i], eyes[i], scale) for i in np.asarray(kept, int).reshape(-1)]


def _centres(stride: int) -> Array:
    """Where the anchors of one level stand, [N, 2]."""
    axis = np.arange(_SIDE // stride, dtype=np.float32) * stride
    x, y = np.meshgrid(axis, axis)
    return np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), _ANCHORS, axis=0)


def _face(box: list[float], score: float, eyes: Array, scale: float) -> Face:
    left, top, width, height = (value / scale for value in box)
    return Face((left, top, left + width, top + height), score, eyes / np.float32(scale))
