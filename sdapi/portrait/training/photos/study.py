"""Face tasks of training: one picture each, run in the face processes."""

import io
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from PIL import Image

from sdapi.errors import BadImage
from sdapi.portrait.checking import Code, Looked, people_in
from sdapi.portrait.faces.align import eye_angle, level_square
from sdapi.portrait.faces.face import USUAL, Box, Embedding, Face, FaceError, Pixels, Points
from sdapi.portrait.faces.pose import eye_centres, is_frontal, mouth_opening, pose_of
from sdapi.portrait.faces.providers import Providers
from sdapi.portrait.models.artefacts import Reference
from sdapi.portrait.photos import decode_photo
from sdapi.portrait.training.ranking import FaceLook, Metric

JPEG_QUALITY: Final = 95
#: what is kept of a crop: the face's box, moved outward by these shares of its sides
_OUTWARD: Final = 0.30
_UPWARD: Final = 0.15
_DOWNWARD: Final = 0.15
#: sharpness is measured with the eyes this far apart, in the middle of a square
_EYES_APART, _SQUARE, _MIDDLE = 80.0, 256, 160
_SOFTENING: Final = 0.8
#: smaller pictures are enlarged to it before a detector looks at them
_ENOUGH_SIDE: Final = 512
#: the shorter side of what is trained on, at most
_MOST_SIDE: Final = 2048
_LEFT_EYE, _RIGHT_EYE = (36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47)


@dataclass(frozen=True, slots=True, eq=False)
class Studied:
    """What a photo is good for; without a face `look` and what follows are None."""

    #: what a check says of it
    checked: Looked
    #: the whole photo, upright, as JPEG; None where it cannot be decoded
    jpeg: bytes | None = None
    look: FaceLook | None = None
    reference: Reference | None = None
    box: Box | None = None
    metric: Metric = "l2"
    #: role -> name and version of the providers that looked
    providers: dict[str, str] = field(default_factory=dict[str, str])


def study(providers: Providers, data: bytes) -> Studied:
    """Check a photo, and describe its first face from the left."""
    try:
        rgb = decode_photo(data)
    except BadImage:
        return Studied(Looked(Code.NOT_DECODED))
    jpeg = to_jpeg(rgb)
    try:
        faces = people_in(providers.detector.detect(rgb), USUAL.scale(rgb))
    except Exception:  # whatever a detector raises has one code
        return Studied(Looked(Code.NOT_DETECTED), jpeg)
    if not faces:
        return Studied(Looked(Code.NOT_ONE_FACE), jpeg)
    try:
        face = providers.landmarks.locate(rgb, faces[0])
        embedder = providers.embedder
        look, reference = _described(rgb, face, embedder.embed(rgb, face))
    except (FaceError, RuntimeError, ValueError):
        return Studied(Looked(Code.NOT_ENCODED), jpeg)
    checked = Looked(Code.NOT_ONE_FACE)
    if len(faces) == 1:
        is_facing, metric, same = is_frontal(face), embedder.metric, embedder.same
        checked = Looked(Code.SUCCESS, is_facing, look.embedding, metric, same)
    return Studied(checked, jpeg, look, reference, face.box, embedder.metric, _names(providers))


def cut_person(providers: Providers, jpeg: bytes, box: Box, grown: float) -> bytes | None:
    """The crop that is trained on, as JPEG: face, hair and neck, all else white.

    None where the crop shows no face, or nothing is left of it.
    """
    rgb = decode_photo(jpeg)
    area = _grown(box, grown)
    cut = _clipped(rgb, area)
    crop = _trained_size(_large(cut))
    scale = crop.shape[1] / cut.shape[1]
    middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    expected = (middle - np.maximum(np.round(area[:2]), 0)) * scale
    # Somebody else may be near, and larger.
    near = [f for f in providers.detector.detect(crop) if _holds(f.box, expected)]
    if not near:
        return None
    face = providers.landmarks.locate(crop, max(near, key=lambda one: one.width))
    keep = (providers.matting.alpha(crop, face) > 0.5) & _kept_part(face, crop.shape)
    if not keep.any():
        return None
    return to_jpeg(np.where(keep[..., None], crop, np.uint8(255)))


def cut_scene(providers: Providers, jpeg: bytes, grown: float) -> bytes:
    """The square around a face that a scene is learnt from; without a face the middle."""
    rgb = decode_photo(jpeg)
    faces = people_in(providers.detector.detect(rgb), USUAL.scale(rgb))
    if faces and grown >= 1:
        left, top, right, bottom = faces[0].box
        width, height = right - left, bottom - top
        beside, above = width * (grown - 1) / 2, height * (grown - 1) / 4
        area = (left - beside, top - above, right + beside, bottom + 3 * above)
        rgb = _clipped(rgb, area)
    side = min(rgb.shape[:2])
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    square = np.ascontiguousarray(rgb[top : top + side, left : left + side])
    return to_jpeg(_trained_size(square))


def recognise(providers: Providers, data: bytes) -> Embedding | None:
    """The embedding of a picture's largest face; None without one."""
    rgb = _large(decode_photo(data))
    try:
        found = providers.detector.detect(rgb)
        if not found:
            return None
        face = providers.landmarks.locate(rgb, max(found, key=lambda one: one.width))
        return providers.embedder.embed(rgb, face)
    except (FaceError, RuntimeError, ValueError):
        return None


def now_used(providers: Providers) -> tuple[dict[str, str], Metric]:
    """Role -> name and version of the providers, and how their embeddings are compared."""
    return _names(providers), providers.embedder.metric


def only_face(providers: Providers, data: bytes) -> Box | None:
    """The box of the one face that a picture shows; None where it is not one."""
    rgb = decode_photo(data)
    large = _large(rgb)
    found = people_in(providers.detector.detect(large), USUAL.scale(large))
    if len(found) != 1:
        return None
    scale = rgb.shape[0] / large.shape[0]
    left, top, right, bottom = found[0].box
    return left * scale, top * scale, right * scale, bottom * scale


def sharpness(rgb: Pixels, eyes: Points) -> float:
    """Laplacian variance of a face at a fixed size: sharp photos 20 to 90, below 8 is blurred."""
    apart = float(np.linalg.norm(eyes[1] - eyes[0]))
    x, y = (float(value) for value in eyes.mean(axis=0))
    side = apart * _SQUARE / _EYES_APART
    square = level_square(rgb, (x, y), side, eye_angle(eyes), _SQUARE).rgb
    grey = np.asarray(cv2.cvtColor(square, cv2.COLOR_RGB2GRAY), np.float32)
    soft = np.asarray(cv2.GaussianBlur(grey, (0, 0), _SOFTENING), np.float32)
    edge = (_SQUARE - _MIDDLE) // 2
    edges = np.asarray(cv2.Laplacian(soft, cv2.CV_32F), np.float32)
    return float(edges[edge:-edge, edge:-edge].var())


def to_jpeg(rgb: Pixels) -> bytes:
    """A picture as the bytes of a JPEG with full colour."""
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return data.getvalue()


def _described(rgb: Pixels, face: Face, embedding: Embedding) -> tuple[FaceLook, Reference]:
    points = face.points68
    if points is None:
        raise FaceError("the face has no points")
    pose, mouth = pose_of(points), mouth_opening(points)
    sharp = sharpness(rgb, eye_centres(points))
    eyes = (_eye_opening(points, _LEFT_EYE) + _eye_opening(points, _RIGHT_EYE)) / 2
    look = FaceLook(embedding, pose.yaw, pose.roll, mouth, eyes, sharp)
    return look, Reference(points, pose.yaw, pose.pitch, mouth, sharp)


def _eye_opening(points: Points, eye: tuple[int, ...]) -> float:
    """Height by width: below 0.15 it is closed."""
    upper = points[list(eye[1:3])].mean(axis=0)
    lower = points[list(eye[4:6])].mean(axis=0)
    width = float(np.linalg.norm(points[eye[0]] - points[eye[3]]))
    return float(np.linalg.norm(upper - lower)) / max(width, 1e-6)


def _kept_part(face: Face, shape: tuple[int, ...]) -> np.ndarray:
    left, top, right, bottom = face.box
    width, height = right - left, bottom - top
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    beside = (columns >= left - _OUTWARD * width) & (columns < right + _OUTWARD * width)
    return beside & (rows >= top - _UPWARD * height) & (rows < bottom + _DOWNWARD * height)


def _grown(box: Box, factor: float) -> Box:
    left, top, right, bottom = box
    beside, above = (right - left) * (factor - 1) / 2, (bottom - top) * (factor - 1) / 2
    return left - beside, top - above, right + beside, bottom + above


def _holds(box: Box, point: np.ndarray) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _clipped(rgb: Pixels, area: Box) -> Pixels:
    left, top, right, bottom = (round(side) for side in area)
    return rgb[max(top, 0) : max(bottom, 1), max(left, 0) : max(right, 1)]


def _large(rgb: Pixels) -> Pixels:
    """The picture with its shorter side at what detectors want, at least."""
    scale = max(_ENOUGH_SIDE / min(rgb.shape[:2]), 1.0)
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    large = rgb if scale == 1.0 else cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(large, np.uint8)


def _trained_size(rgb: Pixels) -> Pixels:
    """A picture no larger than any checkpoint learns from; each is read again in every epoch."""
    scale = _MOST_SIDE / min(rgb.shape[:2])
    if scale >= 1.0:
        return rgb
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    return np.ascontiguousarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _names(providers: Providers) -> dict[str, str]:
    used = {
        "detector": providers.detector.about,
        "landmarks": providers.landmarks.about,
        "embedder": providers.embedder.about,
        "matting": providers.matting.about,
    }
    return {role: f"{about.name} {about.version}" for role, about in used.items()}
