"""MediaPipe's face mesh and selfie segmentation, run by OpenCV from their two files."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from sdapi.portrait.faces.align import eye_angle, level_square
from sdapi.portrait.faces.face import About, Face, Mask, Pixels, Points
from sdapi.portrait.faces.files import MEDIAPIPE_VERSION
from sdapi.portrait.faces.pose import eye_centres

_LICENCE: Final = "Apache-2.0"
_MESH_SIDE: Final = 192
_SELFIE_SIDE: Final = 256
_POINTS: Final = 468
#: the square around a detector's box, then around the points found in the first round
_BOX_MARGIN: Final = 1.45
_MESH_MARGIN: Final = 1.5

#: the 68 points among the 468
MESH_TO_68: Final = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
)


class MeshLandmarks:
    """468 points; visibly better than 68 on turned heads."""

    def __init__(self, path: Path) -> None:
        self._network: Any = cv2.dnn.readNetFromTFLite(str(path))

    @property
    def about(self) -> About:
        return About("mediapipe-mesh", MEDIAPIPE_VERSION, _LICENCE)

    def locate(self, rgb: Pixels, face: Face) -> Face:
        """Two rounds: the second looks at a square that fits the points of the first."""
        left, top, right, bottom = face.box
        centre = ((left + right) / 2, (top + bottom) / 2)
        mesh = self._round(rgb, centre, _BOX_MARGIN * face.width, eye_angle(face.eyes))
        low, high = mesh.min(axis=0), mesh.max(axis=0)
        middle = ((low + high) / 2).tolist()
        side = _MESH_MARGIN * float((high - low).max())
        eyes = eye_centres(mesh[list(MESH_TO_68)])
        mesh = self._round(rgb, (middle[0], middle[1]), side, eye_angle(eyes))
        points68 = np.ascontiguousarray(mesh[list(MESH_TO_68)])
        return replace(face, mesh=mesh, points68=points68, eyes=eye_centres(points68))

    def _round(self, rgb: Pixels, centre: tuple[float, float], side: float, angle: float) -> Points:
        crop = level_square(rgb, centre, side, angle, _MESH_SIDE)
        self._network.setInput(cv2.dnn.blobFromImage(crop.rgb, 1 / 255.0))
        found = np.asarray(self._network.forward(), np.float32).reshape(_POINTS, 3)
        return crop.back(found[:, :2])


class SelfieMatting:
    """A soft mask of the person, from 256 x 256 pixels."""

    def __init__(self, path: Path) -> None:
        self._network: Any = cv2.dnn.readNetFromTFLite(str(path))

    @property
    def about(self) -> About:
        return About("mediapipe-selfie", MEDIAPIPE_VERSION, _LICENCE)

    def alpha(self, rgb: Pixels, face: Face) -> Mask:
        height, width = rgb.shape[:2]
        small = cv2.resize(rgb, (_SELFIE_SIDE, _SELFIE_SIDE), interpolation=cv2.INTER_AREA)
        self._network.setInput(cv2.dnn.blobFromImage(small, 1 / 255.0))
        mask = np.asarray(self._network.forward(), np.float32).reshape(_SELFIE_SIDE, _SELFIE_SIDE)
        whole = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.clip(np.asarray(whole, np.float32), 0.0, 1.0)
