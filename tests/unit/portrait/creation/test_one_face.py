"""Whose face of a photo is meant, and how much of the photo is kept for it."""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import pytest

from sdapi.portrait.creation import face_tasks
from sdapi.portrait.creation.gathered.person import Person, load_person, source_for
from sdapi.portrait.creation.gathered.sight import Sight
from sdapi.portrait.creation.one_face import described, largest, leftmost, see_one
from sdapi.portrait.faces.face import Face, Pixels
from sdapi.portrait.models.artefacts import Artefacts, Reference
from sdapi.portrait.training.photos.study import study
from tests.portraits.people import photo, pixels
from tests.portraits.portrait_fakes import FacesHere
from tests.portraits.portrait_models import jpeg, picture
from tests.unit.portrait.creation.conftest import Workplace

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def ann_and_a_friend() -> Pixels:
    """`ann` on the left, and a friend on the right who is nearer to the camera."""
    rgb = np.full((420, 660, 3), 140, np.uint8)
    rgb[90:330, :240] = cv2.resize(pixels("person_0"), (240, 240), interpolation=cv2.INTER_AREA)
    rgb[:, 240:] = cv2.resize(pixels("stranger"), (420, 420), interpolation=cv2.INTER_CUBIC)
    return rgb


def replace_photo(place: Workplace, rgb: Pixels, face: Reference | None) -> Artefacts:
    artefacts = Artefacts(place.tools.folders.of("queue", "ann"))
    artefacts.reference.write_bytes(jpeg(rgb))
    if face is not None:
        artefacts.write_reference_face(face)
    return artefacts


async def loaded(place: Workplace, artefacts: Artefacts) -> Person:
    return await load_person(artefacts, "sd15", Sight(place.tools.processes))


def reference_of(face: Face) -> Reference:
    assert face.points68 is not None
    return Reference(face.points68, 0.0, 0.3, 0.0, 50.0)


@pytest.mark.parametrize("is_described", [True, False])
async def test_the_source_is_whom_training_took_for_the_person(
    place: Workplace,
    ann_and_a_friend: Pixels,
    apart_from: Callable[[Pixels, str], float],
    is_described: bool,
):
    studied = study(place.faces.providers, jpeg(ann_and_a_friend))
    face = studied.reference if is_described else None
    person = await loaded(place, replace_photo(place, ann_and_a_friend, face))
    embedded = place.faces.providers.embedder.embed(person.source.rgb, person.source.face)
    assert studied.look is not None
    assert np.linalg.norm(embedded - studied.look.embedding) < 0.1
    assert apart_from(person.source.rgb, "person_0") < apart_from(person.source.rgb, "stranger")


async def test_the_person_may_be_anybody_of_a_photo(place: Workplace, ann_and_a_friend: Pixels):
    seen = face_tasks.see_pixels(place.faces.providers, ann_and_a_friend)
    for face in seen.faces:
        person = await loaded(place, replace_photo(place, ann_and_a_friend, reference_of(face)))
        wanted = place.faces.providers.embedder.embed(ann_and_a_friend, face)
        got = place.faces.providers.embedder.embed(person.source.rgb, person.source.face)
        assert np.linalg.norm(got - wanted) < 0.1


async def test_a_further_photo_is_used_for_whom_it_describes(place: Workplace):
    providers = place.faces.providers
    small = cv2.resize(pixels("turned"), (240, 240), interpolation=cv2.INTER_AREA)
    rgb = np.full((320, 560, 3), 140, np.uint8)
    rgb[40:280, :240], rgb[:, 240:] = small, pixels("stranger")
    own = leftmost(face_tasks.see_pixels(providers, rgb).faces)
    assert own is not None
    artefacts = Artefacts(place.tools.folders.of("queue", "ann"))
    artefacts.write_reference(0, jpeg(rgb), study(providers, jpeg(rgb)).reference or fail())
    person = await loaded(place, artefacts)
    template = largest(face_tasks.see_pixels(providers, picture(33, yaw=35.0)).faces)
    assert template is not None
    source, _ = await source_for(person, template, Sight(place.tools.processes))
    wanted = providers.embedder.embed(rgb, own)
    assert np.linalg.norm(providers.embedder.embed(source.rgb, source.face) - wanted) < 0.2


def fail() -> Reference:
    raise AssertionError("the photo was not described")


async def test_ip_adapter_is_shown_the_person_and_nobody_beside(
    place: Workplace, ann_and_a_friend: Pixels
):
    person = await loaded(place, replace_photo(place, ann_and_a_friend, None))
    shown = face_tasks.reference_face(place.faces.providers, person.picture, 1.0)
    alone = see_one(place.faces.providers, photo("person_0"), None, leftmost)
    assert alone is not None
    assert alone.seen is not None
    wanted = face_tasks.reference_face(place.faces.providers, alone.seen, 1.0)
    stays = (shown < 250).any(axis=2) & (wanted < 250).any(axis=2)
    assert np.abs(shown.astype(int) - wanted)[stays].mean() < 25


def test_a_face_that_is_found_no_more_is_where_it_was(faces: FacesHere):
    points = face_tasks.see_pixels(faces.providers, pixels("person_0")).face.points68
    assert points is not None
    found = see_one(faces.providers, photo("person_0"), (), partial(described, points))
    assert found is not None
    assert found.seen is not None
    assert found.seen.face.points68 is not None
    moved = found.seen.face.points68 - points
    assert np.ptp(moved, axis=0).max() < 0.01


@pytest.mark.parametrize("side", [320, 3000])
def test_a_photo_is_kept_as_far_as_the_face_needs(faces: FacesHere, side: int):
    """Whole photos of dozens of people would fill the memory."""
    large = np.full((side, 2 * side, 3), 140, np.uint8)
    large[:, :side] = cv2.resize(pixels("person_0"), (side, side), interpolation=cv2.INTER_LINEAR)
    found = see_one(faces.providers, jpeg(large), None, leftmost)
    assert found is not None
    assert found.seen is not None
    assert found.seen.rgb.shape[1] < 1.3 * side
    assert max(found.seen.rgb.shape) <= 2048
    target = face_tasks.see_pixels(faces.providers, pixels("stranger"))
    cut, whole = (
        face_tasks.fuse(faces.providers, target.rgb, target.face, source, 1.0, True, False)
        for source in (found.seen, face_tasks.Seen(large, found.faces))
    )
    changed = (whole != target.rgb).any(axis=2)
    assert np.abs(cut.astype(int) - whole)[changed].mean() < (0.5 if side == 320 else 3.0)
