"""The stages' work on pixels: tasks for the face processes, each a function of its pictures.

What goes wrong is raised; the process's owner gets it as FaceTaskFailed, and the stage says which
error of the contract that is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from sdapi.errors import BadImage
from sdapi.portrait.checking import people_in
from sdapi.portrait.faces.face import USUAL, Face, FaceError, Look, Mask, Pixels, Points
from sdapi.portrait.faces.providers import Providers
from sdapi.portrait.photos import decode_photo
from sdapi.portrait.pixels.frame import Frame, around, moved
from sdapi.portrait.pixels.fusion import fused
from sdapi.portrait.pixels.guides.adapter_face import adapter_face
from sdapi.portrait.pixels.guides.replaced import replaced_points
from sdapi.portrait.pixels.masks.regions import Regions
from sdapi.portrait.pixels.masks.shape import Shape
from sdapi.portrait.pixels.masks.skin import skin_mask
from sdapi.portrait.pixels.retouching import enhance, makeup, retouch
from sdapi.portrait.pixels.retouching.colour_shift import colour_shifted

#: small pictures are enlarged to it before a detector looks at them
_ENOUGH_SIDE: Final = 512
#: but a thin one no longer than this, which would fill the memory
_LONGEST_ENLARGED: Final = 4096
#: a face found again lies this near to where it was, in widths of its box
_NEAR: Final = 0.35
#: and is looked for in a box this many times as large
_AROUND: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A picture and the faces that count in it, located, from left to right."""

    rgb: Pixels
    faces: tuple[Face, ...]

    @property
    def face(self) -> Face:
        """The one of a picture in which one counts."""
        (face,) = self.faces
        return face


def see(providers: Providers, data: bytes, look: Look = USUAL) -> Seen | None:
    """A photo's faces; None where it cannot be decoded."""
    try:
        rgb = decode_photo(data)
    except BadImage:
        return None
    return see_pixels(providers, rgb, look)


def see_again(providers: Providers, data: bytes, faces: tuple[Face, ...]) -> Seen:
    """A photo whose faces are known."""
    del providers
    return Seen(decode_photo(data), faces)


def see_pixels(providers: Providers, rgb: Pixels, look: Look = USUAL) -> Seen:
    """The faces of a picture; a small one is looked at enlarged."""
    large, scale = _enlarged(rgb)
    faces = people_in(providers.detector.detect(large, look), look.scale(large))
    located = [providers.landmarks.locate(large, face) for face in faces]
    return Seen(rgb, _reduced(located, scale))


def places(providers: Providers, rgb: Pixels, look: Look) -> tuple[Face, ...]:
    """Every face of a picture, those too small to count among them, not located."""
    large, scale = _enlarged(rgb)
    return _reduced(providers.detector.detect(large, look), scale)


def begin(providers: Providers, rgb: Pixels, face: Face, frame: Frame) -> Seen:
    """The template's part that is worked on, its face located in it anew."""
    cut = frame.cut(rgb)
    shift = np.array([[1.0, 0.0, -frame.left], [0.0, 1.0, -frame.top]])
    large, scale = _enlarged(cut)
    up = np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]])
    located = providers.landmarks.locate(large, moved(moved(face, shift), up))
    across, down = frame.scale
    to_work = np.array([[across / scale, 0.0, 0.0], [0.0, down / scale, 0.0]])
    work = frame.work(rgb)
    found = moved(located, to_work)
    Shape.of(found, work.shape)  # raises where these are no face's landmarks
    return Seen(work, (found,))


def fuse(
    providers: Providers,
    rgb: Pixels,
    face: Face,
    source: Seen,
    ratio: float,
    mirror: bool,
    spares_nose: bool,
) -> Pixels:
    """The person's features in the picture, as much as the ratio says."""
    Shape.of(face, rgb.shape)
    if ratio <= 0.0:
        return rgb
    photo, theirs = source.rgb, source.face
    if mirror:
        photo, theirs = mirrored(photo, theirs)
    swapped = providers.swapper.swap(rgb, face, photo, theirs)
    return fused(rgb, face, swapped, ratio, spares_nose=spares_nose)


def masks(providers: Providers, rgb: Pixels, face: Face, region: str, scale: float) -> Mask:
    """Where a pass draws anew: `face`, `edge`, or `ears` for the face with its ears."""
    parser = providers.parser
    regions = Regions.of(rgb, face, parser)
    if region == "ears":
        return regions.with_ears()
    return regions.edge(scale) if region == "edge" else regions.redrawn()


def pose_points(providers: Providers, face: Face, other: Face) -> Points:
    """The person's own shape in the template's place, as landmarks."""
    del providers
    return replaced_points(face, other)


def relocate(providers: Providers, rgb: Pixels, known: Face) -> Face:
    """The face of a drawn picture; where none is found, the place where it was drawn is taken."""
    large, scale = _enlarged(rgb)
    up = np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]])
    expected = moved(known, up)
    near = [f for f in _detected_around(providers, large, expected) if _is_near(f, expected)]
    begin_at = max(near, key=lambda face: face.width) if near else expected
    found = providers.landmarks.locate(large, begin_at)
    down = np.array([[1 / scale, 0.0, 0.0], [0.0, 1 / scale, 0.0]])
    back = moved(found, down)
    try:
        Shape.of(back, rgb.shape)
    except FaceError:
        return known
    return back


def shift_colour(
    providers: Providers, drawn: Pixels, face: Face, before: Seen, keep_mouth: bool
) -> Pixels:
    """The drawn skin in the template's tone."""
    del providers
    shape = Shape.of(face, drawn.shape)
    keep = shape.lips(0.02 * shape.fw) if keep_mouth else np.zeros(shape.size, np.float32)
    model = before.face
    skins = skin_mask(drawn, face), skin_mask(before.rgb, model)
    return colour_shifted(drawn, before.rgb, *skins, keep, shape.fw)


def make_up(providers: Providers, drawn: Pixels, face: Face, before: Seen, ratio: float) -> Pixels:
    """The template's make-up on the drawn face."""
    del providers
    return makeup.made_up(drawn, face, before.rgb, before.face, ratio)


def reference_face(providers: Providers, source: Seen, margin: float) -> Pixels:
    """The square that IP-Adapter is shown: the face alone, upright, on white."""
    return adapter_face(source.rgb, source.face, providers.parser, margin)


def retouch_skin(providers: Providers, rgb: Pixels, faces: tuple[Face, ...]) -> Pixels:
    """Every face's skin smoother."""
    del providers
    for face in faces:
        rgb = retouch.retouched(rgb, face)
    return rgb


def fix_photo(providers: Providers, rgb: Pixels, faces: tuple[Face, ...]) -> Pixels:
    """Every face with less noise and more detail; half of it shows."""
    del providers
    enhanced = rgb
    for face in faces:
        enhanced = enhance.fixed(enhanced, face)
    return enhance.half_and_half(rgb, enhanced)


def enlarge(providers: Providers, rgb: Pixels) -> Pixels:
    """Twice the size; half of the sharper picture shows."""
    del providers
    return enhance.half_and_half(rgb, enhance.enlarged(rgb))


def mirrored(rgb: Pixels, face: Face) -> tuple[Pixels, Face]:
    """The photo and its face seen in a mirror; points keep their meanings."""
    width = rgb.shape[1]
    flip = np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])
    turned = moved(face, flip)
    left, top, right, bottom = turned.box
    points = turned.points68
    return np.ascontiguousarray(rgb[:, ::-1]), Face(
        (right, top, left, bottom),
        face.score,
        turned.eyes[::-1].copy(),
        None if points is None else points[list(_MIRROR)],
    )


#: which of the 68 points each becomes in a mirror
_MIRROR: Final = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
)


def _enlarged(rgb: Pixels) -> tuple[Pixels, float]:
    """The picture with a shorter side of at least 512 pixels, unless it is thin, and its scale."""
    import cv2

    scale = min(_ENOUGH_SIDE / min(rgb.shape[:2]), _LONGEST_ENLARGED / max(rgb.shape[:2]))
    if scale <= 1.0:
        return rgb, 1.0
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    large = cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(large, np.uint8), scale


def _reduced(faces: Iterable[Face], scale: float) -> tuple[Face, ...]:
    """Faces of an enlarged picture, in the picture's own pixels."""
    if scale == 1.0:
        return tuple(faces)
    back = np.array([[1 / scale, 0.0, 0.0], [0.0, 1 / scale, 0.0]])
    return tuple(moved(face, back) for face in faces)


def _detected_around(providers: Providers, rgb: Pixels, face: Face) -> list[Face]:
    """The faces in the neighbourhood of one, which is a fraction of the picture."""
    part = around(rgb, face.box, _AROUND)
    return [part.out_of(found) for found in providers.detector.detect(part.cut(rgb))]


def _is_near(face: Face, expected: Face) -> bool:
    ours, theirs = (np.array(f.box).reshape(2, 2).mean(axis=0) for f in (face, expected))
    is_like_size = 0.6 <= face.width / max(expected.width, 1.0) <= 1.6
    return is_like_size and float(np.linalg.norm(ours - theirs)) <= _NEAR * expected.width
