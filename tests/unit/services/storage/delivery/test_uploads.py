"""Deliveries to a store that refuses some: nobody waits for others, nothing is lost or replaced."""

import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from sdapi.metrics import Metrics
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.delivery.attempt import Attempt
from sdapi.services.storage.delivery.names import Names
from sdapi.services.storage.delivery.outbox import Outbox
from sdapi.services.storage.delivery.renumbering import Renumbering
from sdapi.services.storage.delivery.upload import Upload
from sdapi.services.storage.delivery.uploads import Uploads
from sdapi.services.storage.numbering import Numbering
from sdapi.services.storage.stores.store import Reason, StoreError

pytestmark = pytest.mark.anyio
PREFIX = ObjectUrl.parse("oss://bucket/a")


class FakeStore:
    """Objects in memory, and what goes wrong with them."""

    def __init__(self) -> None:
        self.objects: dict[ObjectUrl, bytes] = {}
        self.offered: list[str] = []
        self.failure: Callable[[ObjectUrl], Reason | None] = lambda url: None
        #: called in the middle of each upload
        self.meanwhile: Callable[[ObjectUrl], object] = lambda url: None

    def put(self, url: ObjectUrl, path: Path, *, replaces: bool) -> None:
        self.offered.append(url.name)
        data = path.read_bytes()
        self.meanwhile(url)
        if (reason := self.failure(url)) is not None:
            if reason is Reason.DAMAGED:
                self.objects[url] = b"damaged"
            raise StoreError(reason, f"{url}: {reason}")
        if not replaces and self.objects.get(url, data) != data:
            raise StoreError(Reason.EXISTS, f"{url}: there is another")
        self.objects[url] = data

    def names(self, prefix: ObjectUrl) -> list[str]:
        return [url.name for url in self.objects if url.parent == prefix]


class Place:
    """A folder of files, its outbox, and the store it goes to."""

    def __init__(self, folder: Path, store: FakeStore | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.store = folder, store or FakeStore()
        self.outbox = Outbox(folder / "outbox" / "uploads.db")

    def upload(
        self, name: str, data: bytes = b"data", number: Numbering | None = None, keeps: bool = True
    ) -> Upload:
        path = self.folder / name
        path.write_bytes(data)
        return Upload(path, PREFIX.below(name), len(data), number is None, keeps, number)

    @asynccontextmanager
    async def delivering(self, timeout_s: float = 0.1) -> AsyncGenerator[Uploads]:
        names = Names(self.store.names)
        renumbering = Renumbering(self.outbox, names)
        attempt = Attempt(self.outbox, lambda url: self.store, renumbering, Metrics())
        uploads = Uploads(self.outbox, attempt, Metrics(), timeout_s=timeout_s)
        uploads.start()
        try:
            yield uploads
        finally:
            await uploads.close()
            self.outbox.close()

    async def delivered(self, count: int) -> None:
        with anyio.fail_after(10):
            while len(self.store.objects) < count or self.outbox.figures().pending:
                await anyio.sleep(0.02)

    def content(self) -> dict[str, bytes]:
        return {url.name: data for url, data in self.store.objects.items()}


async def sent(uploads: Uploads, *groups: list[Upload]) -> str:
    return await uploads.wait(await uploads.begin(groups))


@pytest.mark.parametrize("reason", [Reason.REFUSED, Reason.FORBIDDEN, Reason.DAMAGED])
async def test_files_that_fail_for_reasons_of_their_own_hold_nobody_up(
    tmp_path: Path, reason: Reason
):
    place = Place(tmp_path)
    place.outbox.add([[place.upload(f"bad{n}.png")] for n in range(40)])
    place.outbox.add([[place.upload("good.png")]])
    place.store.failure = lambda url: reason if url.name.startswith("bad") else None
    async with place.delivering():
        with anyio.fail_after(10):
            while place.content().get("good.png") != b"data" or place.outbox.figures().pending > 40:
                await anyio.sleep(0.02)
        assert place.outbox.figures().pending == 40
        place.store.failure = lambda url: None
        await place.delivered(41)
    assert set(place.content().values()) == {b"data"}


async def test_unreadable_files_hold_nobody_up_and_are_named(tmp_path: Path):
    place = Place(tmp_path)
    unreadable = place.upload("bad.png")
    unreadable.path.unlink()
    unreadable.path.mkdir()
    async with place.delivering() as uploads:
        sentence = await sent(uploads, [unreadable])
        assert f"cannot read {unreadable.path}: Is a directory" in sentence
        assert await sent(uploads, [place.upload("good.png")]) == ""
    assert place.content() == {"good.png": b"data"}
    assert place.outbox.figures().pending == 1


async def test_bucket_that_is_away_is_let_alone_and_then_gets_everything(tmp_path: Path):
    place = Place(tmp_path)
    place.outbox.add([[place.upload(f"{n}.png")] for n in range(30)])
    place.store.failure = lambda url: Reason.UNREACHABLE
    async with place.delivering():
        await anyio.sleep(1.5)
        assert len(place.store.offered) < 16
        place.store.failure = lambda url: None
        await place.delivered(30)


async def test_one_file_that_no_store_answers_for_lets_others_pass(tmp_path: Path):
    place = Place(tmp_path)
    place.outbox.add([[place.upload("bad.png")]])
    place.outbox.add([[place.upload(f"{n}.png")] for n in range(20)])
    place.store.failure = lambda url: Reason.UNREACHABLE if url.name == "bad.png" else None
    async with place.delivering():
        with anyio.fail_after(10):
            while len(place.store.objects) < 20:
                await anyio.sleep(0.02)


async def test_buckets_that_hang_hold_up_neither_others_nor_requests(tmp_path: Path):
    place, goes_on = Place(tmp_path), threading.Event()
    hanging = [ObjectUrl.parse(f"oss://a-hanging-{n}/x") for n in range(3)]
    for number in range(40):
        for prefix in hanging:
            url = prefix.below(f"{prefix.bucket}-{number}")
            place.outbox.add([[replace(place.upload(url.name), url=url)]])

    def hangs(url: ObjectUrl) -> None:
        if url.parent in hanging:
            goes_on.wait(20)

    place.store.meanwhile = hangs
    async with place.delivering(timeout_s=5.0) as uploads:
        try:
            await anyio.sleep(3)  # for many rounds
            assert len(place.store.offered) < 16
            place.outbox.add([[place.upload(f"{n}.png")] for n in range(5)])
            assert await sent(uploads, [place.upload("now.png")]) == ""
            with anyio.fail_after(10):
                while len(place.store.objects) < 6:
                    await anyio.sleep(0.02)
        finally:
            goes_on.set()


async def test_requests_to_a_bucket_that_hangs_hold_up_no_request_to_another(tmp_path: Path):
    place, goes_on = Place(tmp_path), threading.Event()
    hanging = ObjectUrl.parse("oss://a-hanging-one/x")
    stuck = [
        [replace(place.upload(f"stuck-{n}.png"), url=hanging.below(f"{n}.png"))] for n in range(60)
    ]
    place.store.meanwhile = lambda url: url.parent == hanging and goes_on.wait(20)
    async with place.delivering(timeout_s=4.0) as uploads:
        try:
            waiting = await uploads.begin(stuck)
            await anyio.sleep(0.2)
            others = [[place.upload(f"{n}.png")] for n in range(20)]
            assert await sent(uploads, *others) == ""
            assert "take too long" in await uploads.wait(waiting)
            assert len([task for task in waiting if not task.done()]) == 16
            assert place.outbox.figures().pending == 60  # and delivered later
        finally:
            goes_on.set()


async def test_bucket_that_is_away_and_hangs_gets_one_file_at_a_time(tmp_path: Path):
    place, goes_on = Place(tmp_path), threading.Event()
    place.outbox.add([[place.upload(f"{n}.png")] for n in range(30)])
    place.store.failure = lambda url: Reason.UNREACHABLE
    async with place.delivering():
        try:
            await anyio.sleep(0.5)  # all that were begun at once have failed
            place.store.meanwhile = lambda url: goes_on.wait(20)
            failed = len(place.store.offered)
            await anyio.sleep(3)
            assert len(place.store.offered) == failed + 1
        finally:
            goes_on.set()


async def test_number_that_another_server_took_is_exchanged_for_the_next(tmp_path: Path):
    place, number = Place(tmp_path), Numbering("grid-", 4, ".png")
    place.store.objects[PREFIX.below("grid-0007.png")] = b"of another"
    picture = place.upload("grid-0007.png", b"ours", number)
    text = place.upload("grid-0007.txt", b"text", Numbering("grid-", 4, ".txt"))
    async with place.delivering() as uploads:
        assert await sent(uploads, [picture, text]) == ""
    assert place.content() == {
        "grid-0007.png": b"of another",
        "grid-0008.png": b"ours",
        "grid-0008.txt": b"text",
    }
    names = sorted(path.name for path in place.folder.iterdir() if path.is_file())
    assert names == ["grid-0008.png", "grid-0008.txt"]
    assert place.outbox.figures().refused == place.outbox.figures().pending == 0


def with_taken_number(folder: Path) -> tuple[Place, Upload, Upload]:
    """A picture whose number another server has used, and the text beside it."""
    place = Place(folder)
    place.store.objects[PREFIX.below("grid-0007.png")] = b"of another"
    picture = place.upload("grid-0007.png", b"ours", Numbering("grid-", 4, ".png"))
    return place, picture, place.upload("grid-0007.txt", b"text", Numbering("grid-", 4, ".txt"))


async def test_picture_whose_text_was_deleted_gets_its_next_number(tmp_path: Path):
    place, picture, text = with_taken_number(tmp_path)
    text.path.unlink()
    async with place.delivering() as uploads:
        assert "grid-0007.txt is gone" in await sent(uploads, [picture, text])
    assert place.content() == {"grid-0007.png": b"of another", "grid-0008.png": b"ours"}
    assert [path.name for path in place.folder.glob("*.*")] == ["grid-0008.png"]
    figures = place.outbox.figures()
    assert (figures.pending, figures.refused) == (0, 1)


async def test_failed_renumbering_leaves_no_copy_that_nobody_delivers(tmp_path: Path):
    place, picture, text = with_taken_number(tmp_path)
    text.path.unlink()
    text.path.mkdir()
    async with place.delivering() as uploads:
        assert "Is a directory" in await sent(uploads, [picture, text])
        assert sorted(path.name for path in place.folder.glob("*.*")) == [
            "grid-0007.png",
            "grid-0007.txt",
        ]
    figures = place.outbox.figures()
    assert (figures.pending, figures.refused) == (2, 0)


async def test_picture_that_is_there_is_not_given_up_for_another_missing_file(tmp_path: Path):
    place = Place(tmp_path)

    def something_is_gone(url: ObjectUrl) -> None:
        if len(place.store.offered) == 1:
            raise FileNotFoundError

    place.store.meanwhile = something_is_gone
    async with place.delivering() as uploads:
        assert "x.png was offered" in await sent(uploads, [place.upload("x.png")])
        await place.delivered(1)
    assert place.content() == {"x.png": b"data"}


async def test_text_beside_a_picture_that_failed_waits_for_its_number(tmp_path: Path):
    place, picture, text = with_taken_number(tmp_path)
    place.store.failure = lambda url: Reason.FORBIDDEN if url.name.endswith(".png") else None
    async with place.delivering() as uploads:
        assert "grid-0007.png: forbidden" in await sent(uploads, [picture, text])
        assert "grid-0007.png: forbidden" in uploads.last_error
        place.store.failure = lambda url: None
        await place.delivered(3)
    assert place.content() == {
        "grid-0007.png": b"of another",
        "grid-0008.png": b"ours",
        "grid-0008.txt": b"text",
    }


async def test_many_servers_of_one_prefix_lose_and_replace_nothing(tmp_path: Path):
    store, pictures = FakeStore(), list[bytes]()
    places = [Place(tmp_path / str(n), store) for n in range(3)]
    for place in places:
        for number in range(6):
            data = f"{place.folder.name}-{number}".encode()
            numbering = Numbering("", 5, ".png")
            place.outbox.add([[place.upload(f"{number:05}.png", data, numbering)]])
            pictures.append(data)
    async with (
        places[0].delivering(),
        places[1].delivering(),
        places[2].delivering(),
    ):
        for place in places:
            await place.delivered(18)
    assert sorted(store.objects.values()) == sorted(pictures)
    assert sorted(place_content(places)) == sorted(pictures)


def place_content(places: list[Place]) -> list[bytes]:
    """The files on all disks, each of which has the name that its object has."""
    found: list[bytes] = []
    for place in places:
        for path in place.folder.glob("*.png"):
            assert place.content()[path.name] == path.read_bytes()
            found.append(path.read_bytes())
    return found


async def test_store_that_cannot_be_listed_leaves_a_taken_name_pending(tmp_path: Path):
    place = Place(tmp_path)
    place.store.objects[PREFIX.below("00000.png")] = b"of another"

    def unlisted(prefix: ObjectUrl) -> list[str]:
        raise StoreError(Reason.FORBIDDEN, "no right to list")

    place.store.names = unlisted
    async with place.delivering() as uploads:
        assert "no right to list" in await sent(
            uploads, [place.upload("00000.png", b"ours", Numbering("", 5, ".png"))]
        )
    assert place.outbox.figures().pending == 1
    assert place.content() == {"00000.png": b"of another"}


async def test_damaged_rest_of_an_upload_is_replaced_also_after_a_restart(tmp_path: Path):
    place = Place(tmp_path)
    place.store.failure = lambda url: Reason.DAMAGED
    async with place.delivering(timeout_s=0.0) as uploads:
        assert await sent(uploads, [place.upload("00000.png", b"ours", Numbering("", 5, ".png"))])
    assert place.content() == {"00000.png": b"damaged"}
    again = Place(tmp_path, place.store)
    place.store.failure = lambda url: None
    async with again.delivering():
        with anyio.fail_after(10):
            while again.outbox.figures().pending:
                await anyio.sleep(0.02)
    assert again.content() == {"00000.png": b"ours"}


async def test_file_written_anew_while_the_older_is_uploaded_is_not_dropped(tmp_path: Path):
    place = Place(tmp_path)
    older = place.upload("x.png", b"older", keeps=False)
    is_written = threading.Event()

    def written_anew(url: ObjectUrl) -> None:
        if not is_written.is_set():
            new = place.folder / "new"
            new.write_bytes(b"newer")
            new.replace(older.path)
            is_written.set()

    place.store.meanwhile = written_anew
    async with place.delivering() as uploads:
        assert await sent(uploads, [older]) == ""
        assert older.path.read_bytes() == b"newer"
        assert await sent(uploads, [older]) == ""
    assert place.content() == {"x.png": b"newer"}
    assert not older.path.exists()


async def test_newer_of_two_files_of_a_name_is_what_the_store_ends_with(tmp_path: Path):
    place = Place(tmp_path)

    def slow_if_older(url: ObjectUrl) -> None:
        if len(place.store.offered) == 1:
            time.sleep(0.5)

    place.store.meanwhile = slow_if_older
    async with place.delivering() as uploads:
        first = await uploads.begin([[place.upload("x.png", b"older", keeps=False)]])
        while not place.store.offered:
            await anyio.sleep(0.01)
        second = await uploads.begin([[place.upload("x.png", b"newer", keeps=False)]])
        with anyio.fail_after(5):
            for each in (*first, *second):
                await each
    assert place.content() == {"x.png": b"newer"}
    assert place.outbox.figures().pending == 0
    assert not (place.folder / "x.png").exists()


async def test_stopped_server_leaves_its_claims_to_the_next(tmp_path: Path):
    place = Place(tmp_path)
    place.store.failure = lambda url: Reason.UNREACHABLE
    async with place.delivering(timeout_s=60.0) as uploads:
        await uploads.begin([[place.upload("x.png")]])
        while not place.store.offered:
            await anyio.sleep(0.01)
    again = Place(tmp_path, place.store)
    place.store.failure = lambda url: None
    async with again.delivering():
        await again.delivered(1)


def test_reasons_are_the_buckets_or_the_files():
    concerned = {reason for reason in Reason if StoreError(reason, "").concerns_bucket}
    assert concerned == {
        Reason.UNREACHABLE,
        Reason.CREDENTIALS,
        Reason.CLOCK,
        Reason.NO_BUCKET,
    }
