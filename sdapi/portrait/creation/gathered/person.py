"""Who is to be seen: a trained person, or one of whom there is a single picture."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread

from sdapi.portrait import faults
from sdapi.portrait.creation.face_tasks import Seen
from sdapi.portrait.creation.gathered.sight import Sight
from sdapi.portrait.creation.one_face import Choice, described, largest, leftmost
from sdapi.portrait.faces.face import Face
from sdapi.portrait.faces.pose import mouth_opening, pose_of
from sdapi.portrait.faces.processes import FaceTaskFailed
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.models.artefacts import ArtefactError, Artefacts, ModelMeta, Reference
from sdapi.portrait.state.records import Base

#: the stored reference serves templates that are turned no further away from it, degrees
_NEAR_YAW: Final = 15.0
#: a photo that training kept for other poses
Further = tuple[Path, Reference]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """The source of fusions, and the LoRA where one was trained."""

    #: a photo with the person's face alone
    source: Seen
    meta: ModelMeta | None = None
    #: in the best picture that training drew; None for SDXL and where nothing was trained
    face_id: Face | None = None
    others: tuple[Further, ...] = ()
    #: what IP-Adapter is shown; None: the source
    shown: Seen | None = None

    @property
    def picture(self) -> Seen:
        """What IP-Adapter is shown."""
        return self.shown or self.source


@dataclass(frozen=True, slots=True)
class Likeness:
    """How a photo is to be used for a template's pose."""

    #: None for the reference photo itself
    photo: Further | None = None
    mirror: bool = False


async def load_person(artefacts: Artefacts, kind: Base, sight: Sight) -> Person:
    """The person of a model's files; raises PortraitError for what is missing or unfit."""
    meta = await load_meta(artefacts, kind, "person")
    reference = await _read(artefacts.reference)
    if reference is None:
        raise PortraitError(faults.NOT_TRAINED)
    known = await anyio.to_thread.run_sync(artefacts.reference_face)
    whose = leftmost if known is None else partial(described, known.points68)
    source = await see_person(sight, reference, whose, faults.NOT_TRAINED)
    face_id = await _face_id(artefacts, kind, sight)
    others = await anyio.to_thread.run_sync(artefacts.references)
    return Person(source, meta, face_id, tuple(others))


async def load_meta(artefacts: Artefacts, kind: Base, role: str) -> ModelMeta:
    """What a model is; raises PortraitError when it was not trained for this."""
    try:
        meta = await anyio.to_thread.run_sync(artefacts.meta)
    except ArtefactError as error:
        log.warning("portrait: %s: %s", artefacts.folder.name, error)
        raise PortraitError(faults.NOT_TRAINED) from error
    if (meta.kind, meta.role) != (kind, role):
        log.info("portrait: %s is a %s of %s", artefacts.folder.name, meta.role, meta.kind)
        raise PortraitError(faults.MODEL_ID_MALFORMED)
    return meta


async def see_person(sight: Sight, data: bytes, whose: Choice, fault: faults.Fault) -> Seen:
    """One person in a photo; raises PortraitError where no face is to be seen in it."""
    try:
        seen = await sight.see_one(data, whose)
    except FaceTaskFailed as error:
        raise PortraitError(fault) from error
    if seen is None:
        raise PortraitError(fault)
    return seen


def suitable(person: Person, face: Face) -> Likeness:
    """The photo, or its mirror image, whose pose is nearest to the template's."""
    template = face.points68
    own = person.source.face.points68
    if template is None or own is None:
        return Likeness()
    wanted, have = pose_of(template), pose_of(own)
    if abs(wanted.yaw - have.yaw) <= _NEAR_YAW:
        return Likeness()
    mouth = mouth_opening(template)
    photos: list[tuple[Further | None, float, float, float]] = [
        (None, have.yaw, have.pitch, mouth_opening(own)),
        *((photo, photo[1].yaw, photo[1].pitch, photo[1].mouth_opening) for photo in person.others),
    ]

    def apart(choice: tuple[Further | None, float, float, float, bool]) -> float:
        _, yaw, pitch, opening, mirror = choice
        turn = abs(wanted.yaw - (-yaw if mirror else yaw))
        return turn + 0.5 * abs(wanted.pitch - pitch) + 20.0 * abs(mouth - opening)

    best = min(((*photo, mirror) for photo in photos for mirror in (False, True)), key=apart)
    return Likeness(best[0], best[4])


async def source_for(person: Person, face: Face, sight: Sight) -> tuple[Seen, bool]:
    """The photo to fuse into a template, and whether it is to be mirrored."""
    likeness = suitable(person, face)
    if likeness.photo is None:
        return person.source, likeness.mirror
    path, reference = likeness.photo
    data = await _read(path)
    try:
        whose = partial(described, reference.points68)
        seen = None if data is None else await sight.see_one(data, whose)
    except FaceTaskFailed:
        seen = None
    if seen is None:
        log.warning("portrait: the further reference %s is of no use", path.name)
        return person.source, False
    return seen, likeness.mirror


async def _face_id(artefacts: Artefacts, kind: Base, sight: Sight) -> Face | None:
    """Its absence is normal for SDXL, which is trained without trial pictures."""
    data = await _read(artefacts.face_id)
    if data is None and kind == "xl":
        return None
    if data is None:
        raise PortraitError(faults.FACE_ID_UNREADABLE)
    # A trial, in which training took the largest face for the person's, too.
    return (await see_person(sight, data, largest, faults.FACE_ID_UNREADABLE)).face


async def _read(path: Path) -> bytes | None:
    """A file; None where it cannot be read."""
    try:
        return await anyio.to_thread.run_sync(path.read_bytes)
    except OSError:
        return None
