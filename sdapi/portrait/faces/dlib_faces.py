"""The built-in providers: dlib's detectors, its 68 points and its 128 numbers.

The networks' files come with the package `face_recognition_models`, which is never imported: its
`__init__` needs a module that setuptools no longer has. The 5-point predictor, the CNN detector and
the embedding are free of conditions; the 68-point file was trained on pictures that exclude
commercial use, so it is opened only where no face mesh is there.
"""

from dataclasses import replace
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.portrait.faces.align import WORKING_SIDE, eye_angle, level_square, move, shrink
from sdapi.portrait.faces.face import (
    USUAL,
    About,
    Box,
    Embedding,
    Face,
    FaceError,
    Look,
    Pixels,
    Points,
    from_left_to_right,
)
from sdapi.portrait.faces.pose import eye_centres

#: what is in it is invisible to type checkers
dlib: Any = import_module("dlib")

_CNN_SIDE: Final = 640
#: no face that counts is in a picture this narrow; the CNN raises below 8 pixels, and may crash
_LEAST_SIDE: Final = 32
#: the width of HOG's window: faces from here on need not be enlarged to be found
_WINDOW: Final = 80
#: what a helmet's reflection scores is below; real profiles score less but are found without
_ENLARGED_SCORE: Final = 0.2
_TURNS: Final = (45.0, -45.0, 90.0, -90.0, 180.0)
#: distance of the outer corners of the eyes, in widths of the box
_EYE_SPAN: Final = (0.25, 0.75)
#: corners of both eyes and the nose's lower end: what dlib's five points are among the 68
_FIVE_OF_68: Final = (45, 42, 36, 39, 33)
_LEVEL_ENOUGH: Final = 20.0
_POINTS_CROP: Final = 256
#: distance of two pictures of one person; pictures of one face that were changed stay below 0.30
_SAME: Final = 0.45


def model_file(name: str) -> str:
    """The path of a file in `face_recognition_models`; raises FaceError without the package."""
    spec = find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise FaceError("the package face_recognition_models is not installed")
    return str(Path(spec.submodule_search_locations[0], "models", name))


class DlibDetector:
    """HOG; then HOG on the picture enlarged, turned; then the CNN. Each only if nothing is found.

    Takes pictures of any size and finds faces from about 80 of the pixels that it looks at on, from
    40 where it looks for small ones.
    """

    def __init__(self) -> None:
        self._hog: Any = dlib.get_frontal_face_detector()
        self._five: Any = dlib.shape_predictor(model_file("shape_predictor_5_face_landmarks.dat"))

    @cached_property
    def _cnn(self) -> Any:
        return dlib.cnn_face_detection_model_v1(model_file("mmod_human_face_detector.dat"))

    @property
    def about(self) -> About:
        return About("dlib", version("dlib-bin"), "BSL-1.0; models CC0")

    def detect(self, rgb: Pixels, look: Look = USUAL) -> list[Face]:
        small, scale = shrink(rgb, look.side)
        if min(small.shape[:2]) < _LEAST_SIDE:
            return []
        upright = self._large_and_small(small) if look.finds_small else self._upright(small)
        found = upright or self._turned(small) or self._with_cnn(small)
        return from_left_to_right([_scaled(face, 1.0 / scale) for face in found])

    def _large_and_small(self, rgb: Pixels) -> list[Face]:
        faces = self._hog_faces(rgb, 1, 0.0)
        return [f for f in faces if f.width >= _WINDOW or f.score >= _ENLARGED_SCORE]

    def _upright(self, rgb: Pixels) -> list[Face]:
        return self._hog_faces(rgb, 0, 0.0) or self._hog_faces(rgb, 1, _ENLARGED_SCORE)

    def _hog_faces(self, rgb: Pixels, enlargements: int, least: float) -> list[Face]:
        boxes, scores, _ = self._hog.run(rgb, enlargements, least)
        faces = [self._face(rgb, box, score) for box, score in zip(boxes, scores, strict=True)]
        return [face for face in faces if face is not None]

    def _face(self, rgb: Pixels, box: Any, score: float) -> Face | None:
        """The face in a box, unless its eyes are not where a face has them."""
        points = points_of(self._five(rgb, box))
        span = float(np.linalg.norm(points[0] - points[2])) / max(box.width(), 1)
        if not _EYE_SPAN[0] <= span <= _EYE_SPAN[1]:
            return None
        eyes = np.stack([points[2:4].mean(axis=0), points[0:2].mean(axis=0)])
        sides = (box.left(), box.top(), box.right() + 1, box.bottom() + 1)
        return Face(_box(*sides), float(score), eyes.astype(np.float32))

    def _turned(self, rgb: Pixels) -> list[Face]:
        """HOG holds up to 45 degrees, so five turns reach every angle."""
        for angle in _TURNS:
            turned, turn = _rotate(rgb, angle)
            if faces := self._hog_faces(turned, 0, 0.0):
                back = np.asarray(cv2.invertAffineTransform(turn), np.float64)
                return [_moved(face, back) for face in faces]
        return []

    def _with_cnn(self, rgb: Pixels) -> list[Face]:
        """The CNN's boxes differ from HOG's: HOG gets a second look at what it points to."""
        small, scale = shrink(rgb, _CNN_SIDE)
        faces: list[Face] = []
        for found in self._cnn(small, 0):
            at = found.rect
            grow = 0.3 * at.width()
            sides = (at.left() - grow, at.top() - grow, at.right() + grow, at.bottom() + grow)
            left, top, right, bottom = (round(side / scale) for side in sides)
            left, top = max(left, 0), max(top, 0)
            crop = np.ascontiguousarray(rgb[top:bottom, left:right])
            inside = self._hog_faces(crop, 1, -0.3) if crop.size else []
            shift = np.array([[1.0, 0.0, left], [0.0, 1.0, top]])
            whole = dlib.rectangle(*(round(s / scale) for s in _sides(at)))
            face = _moved(inside[0], shift) if inside else self._face(rgb, whole, 0.0)
            if face is not None:
                faces.append(replace(face, score=float(found.confidence)))
        return faces


class DlibLandmarks:
    """The 68-point predictor."""

    def __init__(self) -> None:
        self._predictor: Any = dlib.shape_predictor(
            model_file("shape_predictor_68_face_landmarks.dat")
        )

    @property
    def about(self) -> About:
        licence = "public domain; trained on 300-W, which excludes commercial use"
        return About("dlib68", version("dlib-bin"), licence)

    def locate(self, rgb: Pixels, face: Face) -> Face:
        """A face that lies on its side is looked at upright: the predictor knows no other."""
        angle = eye_angle(face.eyes)
        left, top, right, bottom = face.box
        if abs(angle) <= _LEVEL_ENOUGH:
            box = dlib.rectangle(round(left), round(top), round(right) - 1, round(bottom) - 1)
            points = points_of(self._predictor(rgb, box))
        else:
            centre, half = ((left + right) / 2, (top + bottom) / 2), _POINTS_CROP // 4
            crop = level_square(rgb, centre, 2 * face.width, angle, _POINTS_CROP)
            box = dlib.rectangle(half, half, 3 * half - 1, 3 * half - 1)
            points = crop.back(points_of(self._predictor(crop.rgb, box)))
        return replace(face, points68=points, eyes=eye_centres(points))


class DlibEmbedder:
    """ResNet-29, 128 numbers; its public threshold of 0.6 is too wide for people who look alike.

    A check for obvious mistakes, not biometrics.
    """

    metric: Literal["l2", "cosine"] = "l2"
    same = _SAME

    def __init__(self) -> None:
        self._network: Any = dlib.face_recognition_model_v1(
            model_file("dlib_face_recognition_resnet_model_v1.dat")
        )

    @property
    def about(self) -> About:
        return About("dlib-resnet", version("dlib-bin"), "CC0")

    def embed(self, rgb: Pixels, face: Face) -> Embedding:
        if face.points68 is None:
            raise FaceError("the face has no points to align it by")
        small, scale = shrink(rgb, WORKING_SIDE)
        points = [
            dlib.point(round(float(x) * scale), round(float(y) * scale))
            for x, y in face.points68[list(_FIVE_OF_68)]
        ]
        left, top, right, bottom = (round(side * scale) for side in face.box)
        shape = dlib.full_object_detection(dlib.rectangle(left, top, right, bottom), points)
        vector = np.array(self._network.compute_face_descriptor(small, shape), np.float32)
        if not np.isfinite(vector).all() or not vector.any():
            raise FaceError("the embedding is empty")
        return vector


def points_of(shape: Any) -> Points:
    """The points of a dlib detection, [N, 2]."""
    return np.array([(part.x, part.y) for part in shape.parts()], np.float32)


def _sides(box: Any) -> tuple[int, int, int, int]:
    return box.left(), box.top(), box.right(), box.bottom()


def _box(left: float, top: float, right: float, bottom: float) -> Box:
    return float(left), float(top), float(right), float(bottom)


def _scaled(face: Face, scale: float) -> Face:
    left, top, right, bottom = face.box
    box = _box(left * scale, top * scale, right * scale, bottom * scale)
    return replace(face, box=box, eyes=face.eyes * np.float32(scale))


def _moved(face: Face, transform: NDArray[np.float64]) -> Face:
    """The face after a turn or shift: its box keeps its size around the moved centre."""
    left, top, right, bottom = face.box
    centre = np.array([[(left + right) / 2, (top + bottom) / 2]], np.float32)
    x, y = move(centre, transform)[0].tolist()
    half_width, half_height = (right - left) / 2, (bottom - top) / 2
    box = _box(x - half_width, y - half_height, x + half_width, y + half_height)
    return replace(face, box=box, eyes=move(face.eyes, transform))


def _rotate(rgb: Pixels, angle: float) -> tuple[Pixels, NDArray[np.float64]]:
    """The whole picture turned by `angle` degrees, and the transform that did it."""
    height, width = rgb.shape[:2]
    turn = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0), np.float64)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    size = (round(height * sin + width * cos), round(height * cos + width * sin))
    turn[:, 2] += size[0] / 2 - width / 2, size[1] / 2 - height / 2
    return np.ascontiguousarray(cv2.warpAffine(rgb, turn, size), np.uint8), turn
