"""The outline and the parts of a face as masks, drawn from its landmarks."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from sdapi.portrait.faces.face import Face, FaceError, Mask, Points
from sdapi.portrait.faces.pose import CHIN, LEFT_EYE, RIGHT_EYE
from sdapi.portrait.pixels.raster import grown

_JAW, _BROWS = slice(0, 17), slice(17, 27)
LEFT_BROW, RIGHT_BROW = slice(17, 22), slice(22, 27)
OUTER_LIPS, INNER_LIPS = slice(48, 60), slice(60, 68)
_BRIDGE: Final = 27
#: narrower jaws, in pixels, have no features that could be told apart
_LEAST_WIDTH: Final = 4.0
#: how far the forehead is above each brow point, in heights of the face
_FOREHEAD: Final = 0.75 * np.array(
    [0.18, 0.28, 0.36, 0.42, 0.45, 0.45, 0.42, 0.36, 0.28, 0.18], np.float32
)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A located face in a picture of some size (height, width)."""

    points: Points  # [68, 2]
    size: tuple[int, int]
    mesh: Points | None = None

    @classmethod
    def of(cls, face: Face, size: tuple[int, ...]) -> "Shape":
        """Raises FaceError for a face that has no landmarks, or none that a face could have."""
        if face.points68 is None:
            raise FaceError("the face has no landmarks")
        shape = cls(face.points68, (size[0], size[1]), face.mesh)
        if not np.isfinite(face.points68).all() or shape.fw < _LEAST_WIDTH:
            raise FaceError("the face's landmarks are those of no face")
        return shape

    @property
    def fw(self) -> float:
        """Width of the jaw in pixels."""
        return float(np.linalg.norm(self.points[16] - self.points[0]))

    @property
    def up(self) -> Points:
        """Unit vector from the chin to the bridge of the nose."""
        along = self.points[_BRIDGE] - self.points[CHIN]
        return along / max(float(np.linalg.norm(along)), 1e-6)

    @property
    def height(self) -> float:
        """From the chin to the bridge of the nose, in pixels."""
        return float(np.linalg.norm(self.points[_BRIDGE] - self.points[CHIN]))

    @property
    def forehead(self) -> Points:
        """Ten points where the hair may begin."""
        rise = (_FOREHEAD * self.height)[:, None]
        return np.asarray(self.points[_BROWS] + self.up[None] * rise, np.float32)

    @property
    def raised_brows(self) -> Points:
        """The brows, a little higher than they are: the upper end of the features."""
        return np.asarray(self.points[_BROWS] + self.up[None] * (0.06 * self.fw), np.float32)

    def hull(self, points: Points) -> Mask:
        """The convex hull of some points, filled."""
        mask = np.zeros(self.size, np.uint8)
        outline = cv2.convexHull(np.rint(points).astype(np.int32))
        cv2.fillConvexPoly(mask, outline, 1)
        return mask.astype(np.float32)

    def face(self) -> Mask:
        """Skin and features, up to about the hair line."""
        if self.mesh is not None:
            return self.hull(self.mesh)
        return self.hull(np.concatenate([self.points[_JAW], self.forehead]))

    def core(self) -> Mask:
        """Jaw to brows."""
        return self.hull(np.concatenate([self.points[_JAW], self.raised_brows]))

    def eyes(self, margin: float = 0.0) -> Mask:
        """Both eyes, grown by a margin in pixels."""
        both = np.maximum(self.hull(self.points[LEFT_EYE]), self.hull(self.points[RIGHT_EYE]))
        return grown(both, margin)

    def lips(self, margin: float = 0.0) -> Mask:
        """Both lips and what is between them."""
        return grown(self.hull(self.points[OUTER_LIPS]), margin)

    def inner_mouth(self) -> Mask:
        """What is between the lips; a line where they are closed."""
        return self.hull(self.points[INNER_LIPS])

    def brows(self, thickness: float) -> Mask:
        """Both brows as lines of a thickness in pixels."""
        mask = np.zeros(self.size, np.uint8)
        for part in (LEFT_BROW, RIGHT_BROW):
            line = np.rint(self.points[part]).astype(np.int32)
            cv2.polylines(mask, [line], False, 1, max(round(thickness), 1))
        return mask.astype(np.float32)

    def nose(self) -> Mask:
        """Bridge to nostrils."""
        return self.hull(self.points[27:36])

    def ellipse(self, centre: Points, half: tuple[float, float], turn: float | None = None) -> Mask:
        """A filled ellipse, its second half axis along the face unless turned (degrees)."""
        angle = turn if turn is not None else float(np.degrees(np.arctan2(*self.up[::-1]))) + 90
        mask = np.zeros(self.size, np.uint8)
        middle = (round(float(centre[0])), round(float(centre[1])))
        axes = (max(round(half[0]), 1), max(round(half[1]), 1))
        cv2.ellipse(mask, middle, axes, angle, 0, 360, 1, -1)
        return mask.astype(np.float32)
