"""Photos that were looked at before are not looked at again."""

import hashlib
import threading
from dataclasses import replace

import numpy as np
import pytest

from sdapi.portrait.creation.gathered.sight import Sight
from sdapi.portrait.creation.one_face import leftmost
from sdapi.portrait.faces.face import GROUP, USUAL
from sdapi.portrait.faces.processes import FaceTaskFailed
from tests.portraits.people import photo
from tests.portraits.portrait_fakes import FacesHere

pytestmark = pytest.mark.anyio


@pytest.fixture
def here(faces: FacesHere) -> FacesHere:
    return replace(faces, failing=set(), calls=[], given=[], answers={})


async def test_a_known_photo_is_decoded_and_not_looked_at(here: FacesHere):
    sight = Sight(here)  # pyright: ignore[reportArgumentType]
    first = await sight.see(photo("two"))
    again = await sight.see(photo("two"))
    assert here.calls == ["see", "see_again"]
    assert first is not None
    assert again is not None
    assert (first.rgb == again.rgb).all()
    assert len(again.faces) == 2
    for one, other in zip(first.faces, again.faces, strict=True):
        assert np.array_equal(one.points68, other.points68)


async def test_a_photo_is_remembered_as_closely_as_it_was_looked_at(here: FacesHere):
    sight = Sight(here)  # pyright: ignore[reportArgumentType]
    for look in (USUAL, GROUP, GROUP, USUAL):
        await sight.see(photo("two"), look)
    assert here.calls == ["see", "see", "see_again", "see_again"]


async def test_what_fails_or_is_no_picture_is_tried_again(here: FacesHere):
    sight = Sight(here)  # pyright: ignore[reportArgumentType]
    assert await sight.see(b"no picture") is None
    here.failing = {"see 2"}
    with pytest.raises(FaceTaskFailed):
        await sight.see(photo("person_0"))
    seen = await sight.see(photo("person_0"))
    assert seen is not None
    assert here.calls == ["see", "see", "see"]


async def test_only_the_latest_photos_are_remembered(
    here: FacesHere, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.portrait.creation.gathered.sight._REMEMBERED", 1)
    sight = Sight(here)  # pyright: ignore[reportArgumentType]
    for name in ("person_0", "stranger", "stranger", "person_0"):
        await sight.see(photo(name))
    assert here.calls == ["see", "see", "see_again", "see"]


async def test_a_large_photo_is_hashed_off_the_event_loop(
    here: FacesHere, monkeypatch: pytest.MonkeyPatch
):
    threads: list[int] = []

    def sha256(data: bytes) -> object:
        threads.append(threading.get_ident())
        return real(data)

    real = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", sha256)
    await Sight(here).see(b"no picture")  # pyright: ignore[reportArgumentType]
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_the_faces_of_a_photo_are_known_whosever_was_meant(here: FacesHere):
    sight = Sight(here)  # pyright: ignore[reportArgumentType]
    left = await sight.see_one(photo("two"), leftmost)
    again = await sight.see_one(photo("two"), leftmost)
    await sight.see(photo("two"))
    assert here.calls == ["see_one", "see_one", "see_again"]
    assert left is not None
    assert again is not None
    assert (left.rgb == again.rgb).all()
    assert await sight.see_one(photo("two"), lambda faces: None) is None
    assert await sight.see_one(b"no picture", leftmost) is None
