"""Where a head is turned to, from its 68 points (the order of iBUG's 300-W).

Seen on 35 portraits: plain frontal faces have a yaw of 0 to 12 degrees and a pitch figure of 0.26
to 0.39; three-quarter views 31 to 50 degrees. A face mesh gives about two thirds of that yaw, and a
pitch figure that is lower by 0.05 because its chin lies lower.
"""

from dataclasses import dataclass
from math import asin, atan2, degrees

import numpy as np

from sdapi.portrait.faces.face import Face, Points

_JAW_LEFT, CHIN, _JAW_RIGHT, NOSE_TIP = 2, 8, 14, 30
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
_LEFT_CORNER, _RIGHT_CORNER = 36, 45

MAX_YAW, MAX_YAW_OF_MESH, MAX_ROLL = 20.0, 15.0, 30.0
PITCH_RANGE, PITCH_RANGE_OF_MESH = (0.22, 0.45), (0.17, 0.40)


@dataclass(frozen=True, slots=True)
class Pose:
    """Turn and tilt in degrees; `pitch` is the nose's place between eyes (0) and chin (1)."""

    yaw: float
    roll: float
    pitch: float


def eye_centres(points68: Points) -> Points:
    """The middles of both eyes, [2, 2], the left one first."""
    return np.stack([points68[LEFT_EYE].mean(axis=0), points68[RIGHT_EYE].mean(axis=0)])


def mouth_opening(points68: Points) -> float:
    """Height of the inner lips by the width of the mouth; above 0.25 it laughs or speaks."""
    width = float(np.linalg.norm(points68[48] - points68[54]))
    return float(np.linalg.norm(points68[62] - points68[66])) / max(width, 1e-6)


def pose_of(points68: Points) -> Pose:
    """The pose of a face; points that coincide count as frontal."""
    points = points68.astype(np.float64)
    along = _unit(points[_RIGHT_CORNER] - points[_LEFT_CORNER])
    left = float((points[NOSE_TIP] - points[_JAW_LEFT]) @ along)
    right = float((points[_JAW_RIGHT] - points[NOSE_TIP]) @ along)
    width = left + right
    yaw = degrees(asin(np.clip((left - right) / width, -1.0, 1.0))) if width else 0.0
    eyes = eye_centres(points.astype(np.float32)).astype(np.float64)
    across, middle = eyes[1] - eyes[0], eyes.mean(axis=0)
    down = points[CHIN] - middle
    length = float(np.linalg.norm(down))
    pitch = float((points[NOSE_TIP] - middle) @ down) / length**2 if length else 0.0
    return Pose(yaw, degrees(atan2(across[1], across[0])), pitch)


def is_frontal(face: Face) -> bool:
    """Whether a located face looks at the camera."""
    if face.points68 is None:
        return False
    pose = pose_of(face.points68)
    has_mesh = face.mesh is not None
    low, high = PITCH_RANGE_OF_MESH if has_mesh else PITCH_RANGE
    yaw_limit = MAX_YAW_OF_MESH if has_mesh else MAX_YAW
    is_upright = low <= pose.pitch <= high
    return is_upright and abs(pose.yaw) <= yaw_limit and abs(pose.roll) <= MAX_ROLL


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
