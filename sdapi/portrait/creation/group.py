"""Several persons in one template, the seams between them, and the background.

Contract: portrait-pipeline 3.12 and 4.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import anyio.to_thread
import cv2
import numpy as np

from sdapi.portrait import faults
from sdapi.portrait.creation import face_tasks
from sdapi.portrait.creation.drawing.bases import Target
from sdapi.portrait.creation.drawing.passes import Pass
from sdapi.portrait.creation.gathered.studio import Studio
from sdapi.portrait.creation.gathered.template import Template
from sdapi.portrait.creation.one_person import OnePerson
from sdapi.portrait.faces.face import GROUP, Box, Face, FaceError, Mask, Pixels
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.pixels.frame import LONGEST_SIDE, Frame, around
from sdapi.portrait.pixels.masks.shape import Shape
from sdapi.portrait.pixels.raster import blurred, grown, mixed, resized, resized_mask

_STEPS, _LCM_STEPS = 30, 8
_BACKGROUND_STRENGTH, _SEAM_STRENGTH = 0.35, 0.30
#: of the units, when everything but the faces is drawn
_WEIGHT: Final = 1.0
#: the shorter side of a background, in native sides; 1 where the picture is longer than this
_SIDE, _LONG = 1.5, 1.5
_SEAM_MARGIN: Final = 50
#: how far the seams' ring reaches beyond a face, pixels to be scaled as `Target.scale` says
_SEAM: Final = 24
#: sides are multiples of it: of a whole picture, and of the square of the seams
_STEP, _SEAM_STEP = 8, 32
#: of a face, in widths of its box: forehead and ears are outside a box
_NEIGHBOURHOOD: Final = 3.0


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """What the third pass works on: a part of the picture, and where that is drawn anew."""

    frame: Frame
    #: in the frame's own pixels, and in those that are drawn
    mask: Mask
    small: Mask
    work: Pixels
    strength: float

    @classmethod
    def of(cls, frame: Frame, rgb: Pixels, mask: Mask, strength: float) -> "_Place":
        """`mask` is of the whole picture."""
        cut = frame.cut_mask(mask)
        return cls(frame, cut, resized_mask(cut, frame.size), frame.work(rgb), strength)


async def draw_all(studio: Studio, template: Template, painters: Sequence[OnePerson]) -> Pixels:
    """The template with every face drawn as its person; it has as many faces as there are painters.

    Raises PortraitError.
    """
    try:
        for face in template.faces:
            Shape.of(face, template.rgb.shape)
    except FaceError as error:
        log.warning("portrait: a face of the template cannot be drawn: %s", error)
        raise PortraitError(faults.TEMPLATE_UNUSABLE) from error
    running = template.rgb
    for painter, face in zip(painters, template.faces, strict=True):
        others = [other for other in template.faces if other is not face]
        alone = await anyio.to_thread.run_sync(without_faces, template.rgb, others)
        part = await painter.draw(alone, face)
        drawn = await anyio.to_thread.run_sync(part.onto, running)
        running = await anyio.to_thread.run_sync(_with_others_kept, running, drawn, others)
    if studio.options.background_restore:
        return await _redrawn(studio, running, await _everybody(studio, template), _background)
    if len(painters) > 1:
        return await _redrawn(studio, running, template.faces, _seams)
    return running


async def _everybody(studio: Studio, template: Template) -> tuple[Face, ...]:
    """All faces of the template; of those that do not count in it, their places alone."""
    known = template.faces + template.bystanders
    found = await studio.task(faults.THIRD_DIFFUSION, face_tasks.places, template.rgb, GROUP)
    return known + tuple(face for face in found if not any(_is_within(face, one) for one in known))


def _is_within(face: Face, other: Face) -> bool:
    """Whether the middle of a face lies in the other's box."""
    left, top, right, bottom = face.box
    x, y = (left + right) / 2, (top + bottom) / 2
    return other.box[0] <= x <= other.box[2] and other.box[1] <= y <= other.box[3]


def without_faces(rgb: Pixels, faces: Sequence[Face]) -> Pixels:
    """The picture with some faces blurred away, so that nobody is drawn after them."""
    for face in faces:
        part = _around(rgb, face)
        cut = part.cut(rgb)
        mask = _box_mask(cut, part.into(face).box)
        soft = blurred(grown(mask, 0.15 * face.width), 0.1 * face.width)
        rgb = part.laid_in(rgb, mixed(cut, _smeared(cut, face.width), soft))
    return rgb


def _smeared(rgb: Pixels, width: float) -> Pixels:
    """The picture out of focus, made small first so that a wide blur stays cheap."""
    small_side = max(int(min(rgb.shape[:2]) / max(width / 4, 1.0)), 2)
    scale = small_side / min(rgb.shape[:2])
    size = (max(round(rgb.shape[1] * scale), 1), max(round(rgb.shape[0] * scale), 1))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    back = cv2.resize(small, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(back, np.uint8)


def _with_others_kept(running: Pixels, drawn: Pixels, others: Sequence[Face]) -> Pixels:
    """The drawn picture, but for the faces of others."""
    return mixed(drawn, running, _protected(running, others)) if others else drawn


def _background(rgb: Pixels, faces: Sequence[Face], target: Target) -> _Place:
    """Everything but the faces."""
    kept = _protected(rgb, faces)
    frame = _frame((0, 0, rgb.shape[1], rgb.shape[0]), target, _STEP, least=_SIDE)
    return _Place.of(frame, rgb, 1.0 - kept, _BACKGROUND_STRENGTH)


def _seams(rgb: Pixels, faces: Sequence[Face], target: Target) -> _Place:
    """A soft ring around each face, in the square that holds them all.

    It follows the face's outline, along which the drawn face was laid in.
    """
    boxes = np.array([face.box for face in faces])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = float((high - low).max()) + 2 * _SEAM_MARGIN
    middle = (low + high) / 2
    left, top = (max(int(m - side / 2), 0) for m in middle)
    right = min(int(middle[0] + side / 2), rgb.shape[1])
    bottom = min(int(middle[1] + side / 2), rgb.shape[0])
    frame = _frame((left, top, right - left, bottom - top), target, _SEAM_STEP, least=1.0)
    # sizes are those of the picture that is drawn
    pixel = 1.0 / frame.scale[0] * target.scale
    rings = _masks(rgb, faces, lambda shape: _ring(shape, pixel), _SEAM * 2 * pixel)
    seams = np.asarray(rings * (1.0 - _protected(rgb, faces)), np.float32)
    return _Place.of(frame, rgb, seams, _SEAM_STRENGTH)


def _ring(shape: Shape, pixel: float) -> Mask:
    """A face and what is around it."""
    return blurred(grown(shape.face(), _SEAM * pixel), _SEAM / 3 * pixel)


async def _redrawn(
    studio: Studio,
    running: Pixels,
    faces: Sequence[Face],
    where: Callable[[Pixels, Sequence[Face], Target], _Place],
) -> Pixels:
    """The third pass, without anybody's LoRA."""
    place = await anyio.to_thread.run_sync(where, running, faces, studio.target)
    units = await anyio.to_thread.run_sync(
        lambda: studio.units.canny(place.work, _WEIGHT) + studio.units.colour(place.work, _WEIGHT)
    )
    drawn = await studio.draw(
        faults.THIRD_DIFFUSION,
        Pass(
            prompt=studio.speaker.nobody(),
            negative=studio.speaker.words.negative,
            size=place.frame.size,
            steps=_LCM_STEPS if studio.is_lcm else _STEPS,
            strength=place.strength,
            rgb=place.work,
            mask=place.small,
            units=tuple(units),
        ),
    )
    return await anyio.to_thread.run_sync(_returned, place, running, drawn)


def _returned(place: _Place, running: Pixels, drawn: Pixels) -> Pixels:
    """The drawn picture where the mask is, in the size of the template."""
    frame = place.frame
    large = resized(drawn, (frame.width, frame.height))
    return frame.laid_in(running, mixed(frame.cut(running), large, place.mask))


def _frame(box: tuple[int, int, int, int], target: Target, step: int, *, least: float) -> Frame:
    """A rectangle (left, top, width, height) at the size of the third pass.

    Its shorter side is at most 1.5 native sides, and `least` or more, to which smaller ones are
    enlarged: below its native size a checkpoint draws worse.
    """
    left, top, width, height = box
    native = target.native
    if target.kind == "xl":
        scale = native / sqrt(width * height)
    else:
        aspect = max(width, height) / min(width, height)
        most = native * (1.0 if aspect > _LONG else _SIDE)
        scale = min(max(min(width, height), least * native), most) / min(width, height)
    scale = min(scale, LONGEST_SIDE * native / max(width, height))
    size = tuple(max(round(side * scale / step), 1) * step for side in (width, height))
    return Frame(left, top, width, height, (size[0], size[1]))


def _protected(rgb: Pixels, faces: Sequence[Face]) -> Mask:
    """Faces that no pass without their people may touch; soft at the edge."""
    return _masks(rgb, faces, _soft_face, 0.0)


def _soft_face(shape: Shape) -> Mask:
    return blurred(grown(shape.face(), 0.04 * shape.fw), 0.03 * shape.fw)


def _masks(
    rgb: Pixels, faces: Sequence[Face], mask_of: Callable[[Shape], Mask], margin: float
) -> Mask:
    """The masks of all faces in one; each is made in its face's neighbourhood alone."""
    whole = np.zeros(rgb.shape[:2], np.float32)
    for face in faces:
        part = _around(rgb, face, margin)
        so_far, there = part.cut_mask(whole), part.into(face)
        try:
            mask = mask_of(Shape.of(there, so_far.shape))
        except FaceError:  # a bystander of whom nothing but the place is known
            mask = _box_mask(so_far, there.box)
        whole = part.laid_in_mask(whole, np.maximum(so_far, mask))
    return whole


def _around(rgb: Pixels, face: Face, margin: float = 0.0) -> Frame:
    """A face with as much again on every side, and a margin in pixels."""
    return around(rgb, face.box, _NEIGHBOURHOOD + 2 * margin / max(face.width, 1.0))


def _box_mask(like: Pixels | Mask, box: Box) -> Mask:
    left, top, right, bottom = (max(round(side), 0) for side in box)
    mask = np.zeros(like.shape[:2], np.float32)
    mask[top:bottom, left:right] = 1.0
    return mask
