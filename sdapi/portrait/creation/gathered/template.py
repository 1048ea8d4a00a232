"""The picture that a portrait begins with: fetched, or drawn from text.

Contract: portrait-pipeline 3.1, 5.3, 5.4.
"""

import logging
import math
from dataclasses import dataclass, replace
from typing import Final

from sdapi.errors import BadUrl
from sdapi.portrait import faults
from sdapi.portrait.creation import face_tasks
from sdapi.portrait.creation.drawing.passes import CFG_SCALE, EULER_A, Pass, Unit
from sdapi.portrait.creation.face_tasks import Seen
from sdapi.portrait.creation.gathered.studio import Studio
from sdapi.portrait.creation.one_face import largest
from sdapi.portrait.faces.face import GROUP, USUAL, Face, Look, Pixels
from sdapi.portrait.faces.processes import FaceTaskFailed
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.photos import PhotoFetcher

_SIZE: Final = (624, 832)
#: of SDXL, which draws worse beyond a megapixel: 624 x 832 is twice SD 1's area
_XL_SCALE: Final = 0.68
_STEPS, _LCM_STEPS = 30, 8
_TRIES: Final = 4
_STEP: Final = 8
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """The picture to begin with."""

    rgb: Pixels
    #: that become somebody, located, from left to right
    faces: tuple[Face, ...]
    #: that stay who they are
    bystanders: tuple[Face, ...] = ()


@dataclass(frozen=True, slots=True)
class Invention:
    """A template that is to be drawn from text."""

    prompt: str
    units: tuple[Unit, ...] = ()
    #: LoRAs of people and scenes in the prompt
    needs: tuple[str, ...] = ()


async def fetched(
    studio: Studio, photos: PhotoFetcher, url: str, *, is_group: bool, count: int
) -> Template:
    """The template behind a URL with `count` faces, left to right; raises PortraitError.

    For one person more faces are allowed: the largest is taken.
    """
    try:
        async with photos.held:
            data = await photos.get(url)
    except BadUrl as error:
        log.info("portrait: no template: %s", error)
        raise PortraitError(faults.TEMPLATE_UNREADABLE) from error
    try:
        seen = await studio.sight.see(data, _look(is_group=is_group))
    except FaceTaskFailed as error:
        log.warning("portrait: the template's faces are not found: %s", error)
        raise PortraitError(faults.TEMPLATE_UNUSABLE) from error
    if seen is None:
        raise PortraitError(faults.TEMPLATE_UNREADABLE)
    return counted(seen, count, is_group=is_group)


async def invented(studio: Studio, invention: Invention, *, is_group: bool, count: int) -> Template:
    """A template drawn from text, tried with a few seeds; raises PortraitError.

    For one person where no try shows exactly one face, the largest of the try with the fewest is
    taken, with a warning: a portrait is of more use than the error that the contract has there.
    """
    size = _size(studio)
    asked = Pass(
        prompt=invention.prompt,
        negative=studio.speaker.template_negative,
        size=size,
        steps=_LCM_STEPS if studio.is_lcm else _STEPS,
        units=invention.units,
        needs=invention.needs,
        cfg_scale=CFG_SCALE,
        sampler=EULER_A,
    )
    tries: list[Seen] = []
    for attempt in range(_TRIES):
        again = replace(studio, seed=studio.seed + attempt)
        rgb = await again.draw(faults.FIRST_DIFFUSION, asked)
        nobody = Seen(rgb, ())
        seen = await studio.improve(
            "looking at a drawn template",
            nobody,
            studio.processes.run(face_tasks.see_pixels, rgb, _look(is_group=is_group)),
        )
        if len(seen.faces) == count:
            return counted(seen, count, is_group=is_group)
        tries.append(seen)
    best = min(tries, key=lambda seen: len(seen.faces) or math.inf)
    made = counted(best, count, is_group=is_group)
    studio.warn(
        f"in none of {_TRIES} templates drawn from text exactly one face was found; "
        f"the largest of {len(best.faces)} is taken"
    )
    return made


def counted(seen: Seen, count: int, *, is_group: bool) -> Template:
    """Which faces are to be drawn; raises PortraitError for none and for another number."""
    foremost = largest(seen.faces)
    if foremost is None:
        raise PortraitError(faults.NO_FACE)
    if not is_group:
        others = tuple(face for face in seen.faces if face is not foremost)
        return Template(seen.rgb, (foremost,), others)
    if len(seen.faces) != count:
        raise PortraitError(faults.FACE_COUNT)
    return Template(seen.rgb, seen.faces)


def _look(*, is_group: bool) -> Look:
    return GROUP if is_group else USUAL


def _size(studio: Studio) -> tuple[int, int]:
    """624 x 832 at the size that the checkpoint draws best, in steps of eight.

    A square of that size where the checkpoint knows nothing else: on more it draws two heads.
    """
    target = studio.target
    if target.has_square_templates:
        sides = (float(target.native),) * 2
    else:
        scale = target.scale * (_XL_SCALE if target.kind == "xl" else 1.0)
        sides = (_SIZE[0] * scale, _SIZE[1] * scale)
    width, height = (max(round(side / _STEP), 1) * _STEP for side in sides)
    return width, height
