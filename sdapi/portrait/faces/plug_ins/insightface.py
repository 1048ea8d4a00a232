"""Plug-ins in InsightFace's formats: SCRFD finds faces, ArcFace compares them.

Their usual files are for non-commercial research only; the operator brings them. OpenCV runs them,
so no further package is needed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.portrait.faces.align import arcface_square, five_of, shrink
from sdapi.portrait.faces.face import (
    USUAL,
    About,
    Box,
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
#: pixels that neighbouring tiles have in common: larger faces are found in the whole picture
_TILES_SHARE: Final = 160
#: in widths of a face: so near to a tile's edge it may go on behind it
_CUT_MARGIN: Final = 0.1


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
        """Faces from 16 pixels on of the 640 that many of these files are fixed to.

        To find small ones, tiles of 640 pixels are looked at as well.
        """
        height, width = rgb.shape[:2]
        scale = _SIDE / max(height, width)
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        whole = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
        faces = [_moved(face, (0, 0), scale) for face in self._seen(whole)]
        if look.finds_small:
            faces = _once(faces + self._in_tiles(*shrink(rgb, look.side)))
        return from_left_to_right(faces)

    def _in_tiles(self, rgb: Pixels, scale: float) -> list[Face]:
        """What tiles hold whole, in the pixels of the picture that was shrunk by `scale`."""
        height, width = rgb.shape[:2]
        if max(height, width) <= _SIDE:
            return []
        faces: list[Face] = []
        for top in _starts(height):
            for left in _starts(width):
                tile = rgb[top : top + _SIDE, left : left + _SIDE]
                sides = (left, top, width - left, height - top)
                whole = [face for face in self._seen(tile) if not _is_cut(face, *sides)]
                faces += [_moved(face, (left, top), scale) for face in whole]
        return faces

    def _seen(self, rgb: Pixels) -> list[Face]:
        """The faces of at most 640 pixels square, in these pixels."""
        canvas = np.zeros((_SIDE, _SIDE, 3), np.uint8)
        canvas[: rgb.shape[0], : rgb.shape[1]] = rgb
        blob = np.asarray(cv2.dnn.blobFromImage(canvas, 1 / 128.0, mean=(127.5,) * 3), np.float32)
        return _faces(self._network(blob))


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


def _faces(outputs: Sequence[Array]) -> list[Face]:
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
    boxes: list[Box] = []
    eyes: list[Array] = []
    for stride, score, box, points in zip(_STRIDES, *levels, strict=True):
        centres = _centres(stride)
        for i in np.flatnonzero(score[:, 0] >= _LEAST_SCORE):
            x, y = centres[i]
            left, top, right, bottom = (box[i] * stride).tolist()
            scores.append(float(score[i, 0]))
            boxes.append((x - left, y - top, x + right, y + bottom))
            eyes.append((points[i, :4] * stride).reshape(2, 2) + centres[i])
    return _once([Face(*found) for found in zip(boxes, scores, eyes, strict=True)])


def _once(faces: list[Face]) -> list[Face]:
    """Of faces that lie over each other the surest."""
    boxes = [(f.box[0], f.box[1], f.box[2] - f.box[0], f.box[3] - f.box[1]) for f in faces]
    scores = [face.score for face in faces]
    kept = cv2.dnn.NMSBoxes(boxes, scores, _LEAST_SCORE, _OVERLAP) if boxes else []
    return [faces[i] for i in np.asarray(kept, int).reshape(-1)]


def _starts(length: int) -> list[int]:
    """Where tiles of one side begin that cover a length, each over a part of its neighbours."""
    count = max(math.ceil((length - _TILES_SHARE) / (_SIDE - _TILES_SHARE)), 1)
    return [round(i * (length - _SIDE) / (count - 1)) for i in range(count)] if count > 1 else [0]


def _is_cut(face: Face, before_x: int, before_y: int, after_x: int, after_y: int) -> bool:
    """Whether a tile's edge cuts a face; `before` and `after` it the picture has so many pixels."""
    left, top, right, bottom = face.box
    margin = _CUT_MARGIN * face.width
    is_before = (left < margin and before_x > 0) or (top < margin and before_y > 0)
    end = _SIDE - margin
    return is_before or (right > end and after_x > _SIDE) or (bottom > end and after_y > _SIDE)


def _centres(stride: int) -> Array:
    """Where the anchors of one level stand, [N, 2]."""
    axis = np.arange(_SIDE // stride, dtype=np.float32) * stride
    x, y = np.meshgrid(axis, axis)
    return np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), _ANCHORS, axis=0)


def _moved(face: Face, start: tuple[int, int], scale: float) -> Face:
    """A face of a part that begins at `start`, in the pixels that were shrunk by `scale`."""
    left, top, right, bottom = face.box
    x, y = start
    box = ((left + x) / scale, (top + y) / scale, (right + x) / scale, (bottom + y) / scale)
    return replace(
        face, box=box, eyes=(face.eyes + np.array(start, np.float32)) / np.float32(scale)
    )
