"""The one face that a photo is looked at for, cut out of it.

A portrait of many people needs a photo of each all the while, and whole ones would fill the memory:
what is kept is the face with what is around it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from sdapi.errors import BadImage
from sdapi.portrait.creation.face_tasks import Seen, see_pixels
from sdapi.portrait.faces.face import Box, Face, Pixels, Points
from sdapi.portrait.faces.pose import eye_centres
from sdapi.portrait.faces.providers import Providers
from sdapi.portrait.photos import decode_photo
from sdapi.portrait.pixels.frame import around

#: what is kept, in boxes of the face: a parser looks at 2.2, turned by any angle
_KEPT: Final = 3.2
#: and how long that is at most, several times as much as a checkpoint draws of a face
_LONGEST: Final = 2048
#: a face is the one that was described when its points lie this near, in widths of the jaw
_NEAR: Final = 0.35

#: which of a photo's faces, from left to right, is meant; None where none is
Choice = Callable[[Sequence[Face]], Face | None]


@dataclass(frozen=True, slots=True, eq=False)
class OneFace:
    """What a photo shows; `seen` is the face that was meant, cut out, and None without one."""

    #: in the whole photo
    faces: tuple[Face, ...]
    seen: Seen | None


def see_one(
    providers: Providers, data: bytes, faces: tuple[Face, ...] | None, choice: Choice
) -> OneFace | None:
    """A face task: one face of a photo, whose `faces` may be known; None where it is no picture."""
    try:
        rgb = decode_photo(data)
    except BadImage:
        return None
    if faces is None:
        faces = see_pixels(providers, rgb).faces
    face = choice(faces)
    return OneFace(faces, None if face is None else _cut(rgb, face))


def largest(faces: Sequence[Face]) -> Face | None:
    """Whoever a picture shows first of all."""
    return max(faces, key=lambda face: face.width, default=None)


def leftmost(faces: Sequence[Face]) -> Face | None:
    """Whom training takes for the person of a photo."""
    return faces[0] if faces else None


def described(points68: Points, faces: Sequence[Face]) -> Face:
    """The face of some landmarks, or these by themselves where a detector finds it no more."""
    width = float(np.linalg.norm(points68[16] - points68[0]))

    def apart(points: Points) -> float:
        return float(np.linalg.norm(points - points68, axis=1).mean())

    found = ((apart(face.points68), face) for face in faces if face.points68 is not None)
    distance, nearest = min(found, key=lambda one: one[0], default=(np.inf, None))
    if nearest is not None and distance <= _NEAR * width:
        return nearest
    return Face(_box(points68), 1.0, eye_centres(points68), points68)


def _box(points: Points) -> Box:
    left, top = points.min(axis=0).tolist()
    right, bottom = points.max(axis=0).tolist()
    return left, top, right, bottom


def _cut(rgb: Pixels, face: Face) -> Seen:
    part = around(rgb, face.box, _KEPT)
    scale = min(_LONGEST / max(part.size), 1.0)
    size = (max(round(part.width * scale), 1), max(round(part.height * scale), 1))
    frame = replace(part, size=size)
    return Seen(frame.work(rgb), (frame.into(face),))
