"""Several persons: who becomes whom, what is drawn how often, and what stays."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from sdapi.portrait.creation.face_tasks import see_pixels
from sdapi.portrait.creation.group import without_faces
from sdapi.portrait.faces.face import GROUP, Pixels
from tests.portraits.people import pixels
from tests.portraits.portrait_fakes import FacesHere
from tests.portraits.portrait_models import picture
from tests.unit.portrait.creation.conftest import Workplace

pytestmark = pytest.mark.anyio
ASKED = {"is_group": True, "more_like_me": 1, "more_like_me_before": 1}


def crowd(size: tuple[int, int], *people: tuple[int, int, int, int]) -> Pixels:
    """People on plain grey: who, the side of their picture, left, top."""
    rgb = np.full((size[1], size[0], 3), 140, np.uint8)
    for who, side, left, top in people:
        small = cv2.resize(picture(who), (side, side), interpolation=cv2.INTER_AREA)
        rgb[top : top + side, left : left + side] = small
    return rgb


@pytest.fixture(scope="module")
def uneven() -> Pixels:
    """Two people on a wide picture, one so far away that a usual look misses her."""
    return crowd((1000, 600), (33, 290, 100, 100), (41, 120, 600, 250))


@pytest.fixture(scope="module")
def pair() -> Pixels:
    """Two people who are neither ann nor bob."""
    return np.hstack([picture(who, side=320) for who in (33, 41)])


async def test_faces_become_the_ids_from_left_to_right_and_swap_with_them(
    place: Workplace, pair: Pixels, apart_from: Callable[[Pixels, str], float]
):
    place.serve("pair", pair)
    one = await place.picture("ann", "bob", template="pair", **ASKED)
    other = await place.picture("bob", "ann", template="pair", **ASKED)
    for left in (True, False):
        half = np.s_[:, :320] if left else np.s_[:, 320:]
        crops = [np.ascontiguousarray(rgb[half]) for rgb in (one, other)]
        first, second = crops if left else crops[::-1]
        assert apart_from(first, "person_0") < apart_from(second, "person_0")
        assert apart_from(second, "stranger") < apart_from(first, "stranger")


async def test_each_person_is_drawn_with_their_own_lora_and_the_seams_with_none(
    place: Workplace, pair: Pixels
):
    place.serve("pair", pair)
    created = await place.create("ann", "bob", template="pair", **ASKED)
    prompts = [each.prompt for each in place.drawer.passes]
    assert ["<lora:ann" in p for p in prompts] == [True, True, False, False, False]
    assert ["<lora:bob" in p for p in prompts] == [False, False, True, True, False]
    seams = place.drawer.passes[4]
    assert (seams.steps, seams.strength) == (30, 0.30)
    assert all(side % 32 == 0 for side in seams.size)
    assert max(seams.size) <= 2 * 320  # no larger than they are, as that is enough
    assert min(seams.size) in (256, 288, 320)
    rgb = np.asarray(created.image)
    assert rgb.shape == pair.shape
    assert (rgb[:16] == pair[:16]).all()


async def test_someone_far_away_counts_in_a_group_and_not_beside_one_person(
    place: Workplace, uneven: Pixels
):
    place.serve("uneven", uneven)
    await place.create("ann", template="uneven")
    assert len(place.drawer.passes) == 2
    created = await place.create("ann", "bob", template="uneven", **ASKED)
    assert len(place.drawer.passes) == 2 + 5
    changed = (np.asarray(created.image) != uneven).any(axis=2)
    assert changed[250:370, 600:720].mean() > 0.1


async def test_a_drawn_group_is_looked_at_as_closely(place: Workplace):
    drawn = crowd((312, 416), (33, 200, 10, 20), (41, 80, 220, 300))
    place.drawer.invents = lambda asked: drawn
    await place.create("ann", "bob", template=None, t2i_prompt="two friends", **ASKED)
    assert [each.rgb is None for each in place.drawer.passes] == [True] + [False] * 5


async def test_of_several_drawn_faces_one_person_gets_the_largest_and_it_is_said(
    place: Workplace,
):
    nobody = crowd((312, 416))
    two = crowd((312, 416), (33, 230, 40, 0), (41, 180, 66, 234))
    three = crowd((312, 416), (33, 150, 0, 0), (41, 150, 160, 0), (20, 180, 66, 234))
    tries = iter((nobody, three, two, nobody))
    place.drawer.invents = lambda asked: next(tries)
    created = await place.create("ann", template=None, t2i_prompt="two friends")
    assert [each.seed for each in place.drawer.passes[:4]] == [7, 8, 9, 10]
    assert [each.rgb is None for each in place.drawer.passes] == [True] * 4 + [False] * 2
    assert any("the largest of 2" in each for each in created.warnings)
    changed = (np.asarray(created.image) != two).any(axis=2)
    assert changed[60:170].any()
    assert not changed[300:].any()


async def test_an_id_may_repeat(place: Workplace, pair: Pixels):
    place.serve("pair", pair)
    await place.create("ann", "ann", template="pair", **ASKED)
    assert len(place.drawer.passes) == 5
    assert place.faces.calls.count("see_one") == 2


async def test_a_background_is_drawn_and_faces_are_left_alone(place: Workplace):
    plain = await place.picture("ann")
    drawn = await place.picture("ann", background_restore=True)
    third = place.drawer.passes[-1]
    assert (third.steps, third.strength, third.size) == (30, 0.35, (384, 384))
    assert "<lora:ann" not in third.prompt
    assert third.mask is not None
    assert 0.5 < third.mask.mean() < 0.95
    changed = (drawn != plain).any(axis=2)
    assert changed[:20].all()
    seen = await place.faces.run(see_pixels, pixels("stranger"))
    left, top, right, bottom = (round(side) for side in seen.face.box)
    assert not changed[top + 20 : bottom - 20, left + 20 : right - 20].any()


async def test_a_background_leaves_everybody_who_is_there_alone(place: Workplace):
    plain = await place.picture("ann", template="two")
    drawn = await place.picture("ann", template="two", background_restore=True)
    changed = (drawn != plain).any(axis=2)
    seen = await place.faces.run(see_pixels, pixels("two"))
    assert len(seen.faces) == 2
    for face in seen.faces:
        left, top, right, bottom = (round(side) for side in face.box)
        assert not changed[top + 20 : bottom - 20, left + 20 : right - 20].any()
    assert changed[:20].all()


async def test_a_background_leaves_faces_alone_that_are_too_small_to_count(place: Workplace):
    rgb = crowd((1000, 600), (33, 580, 20, 10), (41, 120, 800, 250))
    place.serve("passer-by", rgb)
    seen = await place.faces.run(see_pixels, rgb, GROUP)
    assert len(seen.faces) == 1
    drawn = await place.picture("ann", template="passer-by", background_restore=True)
    changed = (drawn != rgb).any(axis=2)
    assert not changed[302:332, 849:879].any()  # the face of the passer-by
    assert changed[:20, 700:].all()


async def test_a_bystander_without_landmarks_is_left_alone_by_their_place(place: Workplace):
    seen = await place.faces.run(see_pixels, pixels("two"))
    mine, other = sorted(seen.faces, key=lambda face: -face.width)
    place.faces.answers["see"] = replace(seen, faces=(mine, replace(other, points68=None)))
    plain = await place.picture("ann", template="two")
    drawn = await place.picture("ann", template="two", background_restore=True)
    changed = (drawn != plain).any(axis=2)
    left, top, right, bottom = (round(side) for side in other.box)
    assert not changed[top + 10 : bottom - 10, left + 10 : right - 10].any()
    assert changed[:20].all()


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_thirty_faces_are_drawn_one_by_one(place: Workplace):
    face = picture(33, side=200, scale=0.62)
    rows = [np.hstack([face] * 6)] * 5
    place.serve("crowd", np.vstack(rows))
    place.targets.side = 64
    created = await place.create(*["ann"] * 30, template="crowd", **ASKED)
    assert created.image.size == (1200, 1000)
    assert len(place.drawer.passes) == 61
    changed = (np.asarray(created.image) != np.vstack(rows)).any(axis=2)
    for row in range(5):
        for column in range(6):
            cell = changed[row * 200 : row * 200 + 200, column * 200 : column * 200 + 200]
            assert cell.mean() > 0.02


def test_others_are_blurred_away(faces: FacesHere):
    rgb = pixels("two")
    seen = see_pixels(faces.providers, rgb)
    alone = without_faces(rgb, [seen.faces[1]])
    assert (alone[:, :300] == rgb[:, :300]).all()
    assert len(see_pixels(faces.providers, alone).faces) == 1
