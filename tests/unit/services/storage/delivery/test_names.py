"""The names below a prefix: listed once, and not from a store that has just failed."""

import threading
from collections.abc import Iterator

import pytest

from sdapi.object_url import ObjectUrl
from sdapi.services.storage.delivery.names import Names
from sdapi.services.storage.stores.store import Reason, StoreError

PREFIX = ObjectUrl.parse("oss://bucket/a")


class Listing:
    """A store that lists, or fails."""

    def __init__(self) -> None:
        self.names = {"1.png"}
        self.asked: list[ObjectUrl] = []
        self.is_away = False
        self.now_s = 0.0

    def __call__(self, prefix: ObjectUrl) -> Iterator[str]:
        self.asked.append(prefix)
        if self.is_away:
            raise StoreError(Reason.UNREACHABLE, "away")
        yield from self.names


def test_prefix_is_listed_once_and_what_is_named_since_counts():
    listing = Listing()
    names = Names(listing)
    names.add(PREFIX.below("before.png"))
    assert names.known(PREFIX) == ("1.png",)
    names.add(PREFIX.below("2.png"))
    listing.names.add("of another server")
    assert sorted(names.known(PREFIX)) == ["1.png", "2.png"]
    assert sorted(names.listed_anew(PREFIX)) == ["1.png", "2.png", "of another server"]
    assert len(listing.asked) == 2


def test_store_that_failed_is_not_asked_for_half_a_minute():
    listing = Listing()
    names = Names(listing, lambda: listing.now_s)
    listing.is_away = True
    assert names.known(PREFIX) == names.known(PREFIX) == ()
    assert names.known(PREFIX.below("other")) == ()
    assert names.known(ObjectUrl.parse("oss://elsewhere/a")) == ()
    assert len(listing.asked) == 2
    with pytest.raises(StoreError):
        names.listed_anew(PREFIX)
    listing.is_away, listing.now_s = False, 31.0
    assert names.known(PREFIX) == ("1.png",)


def test_prefixes_of_long_ago_are_forgotten():
    listing = Listing()
    names = Names(listing)
    for day in range(100):
        names.known(PREFIX.below(str(day)))
    names.known(PREFIX.below("99"))
    assert len(listing.asked) == 100
    names.known(PREFIX.below("0"))
    assert len(listing.asked) == 101


def test_slow_listing_of_a_prefix_does_not_hold_up_another():
    is_asked, goes_on = threading.Event(), threading.Event()

    def slow(prefix: ObjectUrl) -> list[str]:
        if prefix == PREFIX:
            is_asked.set()
            assert goes_on.wait(10)
        return ["1.png"]

    names = Names(slow)
    thread = threading.Thread(target=names.known, args=(PREFIX,))
    thread.start()
    assert is_asked.wait(10)
    assert names.known(PREFIX.below("other")) == ("1.png",)
    goes_on.set()
    thread.join(10)
    assert names.known(PREFIX) == ("1.png",)
