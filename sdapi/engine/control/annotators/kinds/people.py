"""Poses of people: drawn in OpenPose's colours, and in its JSON form.

Contract: controlnet-api 12 (`render_openpose_json`).
"""

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.errors import BadRequest

#: shares of the width and the height; None for a point that is not seen
Point = tuple[float, float] | None

#: pairs of a body's points, in the order of their colours
_LIMBS: Final = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12),
    (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
_FINGERS: Final = tuple(
    (0 if joint == 0 else first + joint - 1, first + joint)
    for first in range(1, 21, 4)
    for joint in range(4)
)
_LIMB_SHADE: Final = 0.6
_LIMB_WIDTH = _DOT = 4
_FACE_DOT, _FINGER_WIDTH = 3, 2
_HAND_COLOUR, _FACE_COLOUR = (0, 0, 255), (255, 255, 255)

#: JSON: a point is x, y and how sure it is
_NUMBERS: Final = 3
_LARGEST_SIDE: Final = 8192
#: points of each part
BODY_POINTS: Final = 18
_BODY, _HAND, _FACE = (BODY_POINTS,), (21,), (68, 70)


@dataclass(frozen=True, slots=True)
class Pose:
    """One person; None for a part that was not looked for."""

    body: Sequence[Point]
    left_hand: Sequence[Point] | None = None
    right_hand: Sequence[Point] | None = None
    face: Sequence[Point] | None = None


def draw_poses(poses: Iterable[Pose], height: int, width: int, *, body: bool = True) -> Pixels:
    """Limbs and points on black [H, W, 3]; without `body` hands and faces alone."""
    canvas = np.zeros((height, width, 3), np.uint8)
    for pose in poses:
        if body:
            _draw_body(canvas, _placed(pose.body, canvas))
        for hand in (pose.left_hand, pose.right_hand):
            _draw_hand(canvas, _placed(hand or (), canvas))
        for point in _placed(pose.face or (), canvas):
            if point is not None:
                cv2.circle(canvas, point, _FACE_DOT, _FACE_COLOUR, thickness=-1)
    return canvas


def _placed(points: Sequence[Point], canvas: Pixels) -> list[tuple[int, int] | None]:
    height, width = canvas.shape[:2]
    return [None if p is None else (int(p[0] * width), int(p[1] * height)) for p in points]


def _colour(share: float, shade: float = 1.0) -> tuple[int, int, int]:
    """A colour of the circle of hues."""
    red, green, blue = (round(c * 255) for c in colorsys.hsv_to_rgb(share, 1.0, 1.0))
    return int(red * shade), int(green * shade), int(blue * shade)


def _draw_body(canvas: Pixels, points: list[tuple[int, int] | None]) -> None:
    for index, (start, end) in enumerate(_LIMBS):
        a, b = points[start], points[end]
        if a is None or b is None:
            continue
        middle = int((a[0] + b[0]) / 2), int((a[1] + b[1]) / 2)
        length = float(np.hypot(a[0] - b[0], a[1] - b[1]))
        angle = int(np.degrees(np.arctan2(a[1] - b[1], a[0] - b[0])))
        outline = cv2.ellipse2Poly(middle, (int(length / 2), _LIMB_WIDTH), angle, 0, 360, 1)
        cv2.fillConvexPoly(
            canvas, np.asarray(outline, np.int32), _colour(index / BODY_POINTS, _LIMB_SHADE)
        )
    for index, point in enumerate(points):
        if point is not None:
            cv2.circle(canvas, point, _DOT, _colour(index / BODY_POINTS), thickness=-1)


def _draw_hand(canvas: Pixels, points: list[tuple[int, int] | None]) -> None:
    for index, (start, end) in enumerate(_FINGERS if points else ()):
        a, b = points[start], points[end]
        if a is not None and b is not None:
            cv2.line(canvas, a, b, _colour(index / len(_FINGERS)), thickness=_FINGER_WIDTH)
    for point in points:
        if point is not None:
            cv2.circle(canvas, point, _DOT, _HAND_COLOUR, thickness=-1)


def people_of(poses: Iterable[Pose], height: int, width: int) -> dict[str, Any]:
    """Poses as OpenPose writes them: pixels, 0 for what was not seen."""

    def flat(points: Sequence[Point] | None) -> list[float] | None:
        if points is None:
            return None
        numbers: list[float] = []
        for point in points:
            seen = point is not None
            numbers += [point[0] * width, point[1] * height, 1.0] if seen else [0.0, 0.0, 0.0]
        return numbers

    return {
        "people": [
            {
                "pose_keypoints_2d": flat(pose.body),
                "face_keypoints_2d": flat(pose.face),
                "hand_left_keypoints_2d": flat(pose.left_hand),
                "hand_right_keypoints_2d": flat(pose.right_hand),
            }
            for pose in poses
        ],
        "canvas_height": height,
        "canvas_width": width,
    }


def render_people(people: Mapping[str, Any]) -> Pixels:
    """The drawing of one pose object of a client; raises `BadRequest` that names what is wrong."""
    height, width = (_side(people, name) for name in ("canvas_height", "canvas_width"))
    given = people.get("people")
    if not isinstance(given, list):
        raise BadRequest(f"people is a list of poses, not {given!r:.50}")
    return draw_poses(
        [_pose(index, person, height, width) for index, person in enumerate(given)], height, width
    )


def _side(people: Mapping[str, Any], name: str) -> int:
    side = people.get(name)
    if not isinstance(side, int) or not 1 <= side <= _LARGEST_SIDE:
        raise BadRequest(f"{name} is a whole number from 1 to {_LARGEST_SIDE}, not {side!r:.50}")
    return side


def _pose(index: int, person: Any, height: int, width: int) -> Pose:
    if not isinstance(person, Mapping):
        raise BadRequest(f"people[{index}] is an object, not {person!r:.50}")

    def points(name: str, counts: tuple[int, ...]) -> list[Point] | None:
        return _points(person.get(name), f"people[{index}].{name}", counts, height, width)

    body = points("pose_keypoints_2d", _BODY)
    if body is None:
        raise BadRequest(f"people[{index}].pose_keypoints_2d is missing")
    return Pose(
        body,
        points("hand_left_keypoints_2d", _HAND),
        points("hand_right_keypoints_2d", _HAND),
        points("face_keypoints_2d", _FACE),
    )


def _points(
    numbers: Any, field: str, counts: tuple[int, ...], height: int, width: int
) -> list[Point] | None:
    """Points as shares of the picture; None where there is no part."""
    if not numbers:
        return None
    try:
        table = np.asarray(numbers, np.float64).reshape(-1, _NUMBERS)
    except (ValueError, TypeError):
        table = np.empty((0, _NUMBERS))
    if len(table) not in counts or not (np.abs(table) <= 1e6).all():
        wanted = " or ".join(str(count * _NUMBERS) for count in counts)
        raise BadRequest(f"{field} is a list of {wanted} numbers: x, y and confidence by turns")
    # Some programs write shares already.
    scale = np.array([width, height]) if table[:, :2].max() > 1.0 else np.ones(2)
    shares = table[:, :2] / scale
    return [
        (float(x), float(y)) if sure > 0 else None
        for (x, y), sure in zip(shares, table[:, 2], strict=True)
    ]
