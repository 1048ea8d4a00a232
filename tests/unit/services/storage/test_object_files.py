"""The cache of large objects: by ETag, within its budget, never what is in use."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdapi.errors import StorageFailed
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.object_files import ObjectFiles
from sdapi.services.storage.stores.local import LocalStore
from sdapi.services.storage.stores.store import (
    Reason,
    StoreError,
    TransferStopped,
    never,
)

PREFIX = ObjectUrl.parse("oss://bucket/models")


class CountingStore(LocalStore):
    """A folder as a store, which tells how often it was asked for content."""

    def __init__(self, folder: Path) -> None:
        super().__init__(PREFIX, folder)
        self.downloads: list[str] = []
        self.meanwhile: Callable[[ObjectUrl], None] = lambda url: None
        self._guard = threading.Lock()

    def download(
        self,
        url: ObjectUrl,
        path: Path,
        *,
        max_bytes: int,
        is_stopped: Callable[[], bool] = never,
    ) -> None:
        self.meanwhile(url)
        super().download(url, path, max_bytes=max_bytes, is_stopped=is_stopped)
        with self._guard:
            self.downloads.append(url.name)


class Cache:
    def __init__(self, tmp_path: Path, budget_bytes: int = 100) -> None:
        self.source = tmp_path / "source"
        self.source.mkdir()
        self.store = CountingStore(self.source)
        self.used: set[Path] = set()
        self.folder = tmp_path / "cache"
        self.files = ObjectFiles(
            self.folder, budget_bytes, lambda url: self.store, lambda: self.used
        )

    def put(self, name: str, data: bytes) -> ObjectUrl:
        (self.source / name).write_bytes(data)
        return PREFIX.below(name)

    def age(self) -> None:
        """Let everything be long unused."""
        for folder in self.folder.glob("*/*"):
            os.utime(folder, (time.time() - 1000,) * 2)


def test_an_object_is_fetched_once_until_it_changes(tmp_path: Path):
    cache = Cache(tmp_path)
    url = cache.put("m.safetensors", b"one")
    first = cache.files.fetch(url)
    assert (first.name, first.read_bytes()) == ("m.safetensors", b"one")
    assert cache.files.fetch(url) == first
    assert cache.store.downloads == ["m.safetensors"]
    cache.put("m.safetensors", b"another")
    assert cache.files.fetch(url).read_bytes() == b"another"
    assert first.read_bytes() == b"one"


def test_what_was_used_longest_ago_goes_first_and_what_is_used_stays(tmp_path: Path):
    cache = Cache(tmp_path)
    paths = [cache.files.fetch(cache.put(f"{n}.pt", b"x" * 40)) for n in range(2)]
    cache.age()
    cache.used = {paths[0]}
    third = cache.files.fetch(cache.put("2.pt", b"x" * 40))
    assert [path.exists() for path in (*paths, third)] == [True, False, True]
    cache.age()
    cache.used = {paths[0], third}
    with pytest.raises(StorageFailed, match="object-cache-gb"):
        cache.files.fetch(cache.put("3.pt", b"x" * 40))
    assert paths[0].exists()


def test_object_over_the_budget_is_refused_before_it_is_fetched(tmp_path: Path):
    cache = Cache(tmp_path)
    with pytest.raises(StoreError) as error:
        cache.files.fetch(cache.put("m.pt", b"x" * 101))
    assert error.value.reason is Reason.TOO_LARGE
    assert cache.store.downloads == []


def test_what_lies_beside_comes_along(tmp_path: Path):
    cache = Cache(tmp_path)
    cache.put("m.yaml", b"v")
    path = cache.files.fetch(cache.put("m.pt", b"x"), beside=(".yaml", ".json"))
    assert path.with_suffix(".yaml").read_bytes() == b"v"
    assert not path.with_suffix(".json").exists()


def test_failed_fetch_leaves_nothing_and_frees_its_room(tmp_path: Path):
    cache = Cache(tmp_path)
    url = cache.put("m.pt", b"x" * 80)
    missing = PREFIX.below("none.pt")
    for _ in range(3):
        with pytest.raises(StoreError):
            cache.files.fetch(missing)
    assert cache.files.fetch(url).read_bytes() == b"x" * 80
    assert [p.name for p in cache.folder.rglob("*") if p.is_file()] == ["m.pt"]


def test_links_that_lead_out_of_a_mounted_folder_are_refused(tmp_path: Path):
    cache = Cache(tmp_path)
    (tmp_path / "secret.pt").write_bytes(b"secret")
    (cache.source / "link.pt").symlink_to(tmp_path / "secret.pt")
    with pytest.raises(StoreError) as error:
        cache.files.fetch(PREFIX.below("link.pt"))
    assert error.value.reason is Reason.FORBIDDEN


def test_what_killed_fetches_left_is_counted_and_then_swept(tmp_path: Path):
    cache = Cache(tmp_path)
    path = cache.files.fetch(cache.put("m.pt", b"x" * 20))
    part = path.with_name(".dead.part")
    part.write_bytes(b"x" * 50)
    other = cache.put("n.pt", b"x" * 40)
    with pytest.raises(StorageFailed, match="object-cache-gb"):
        cache.files.fetch(other)
    os.utime(part, (time.time() - 1000,) * 2)
    assert cache.files.fetch(other).is_file()
    assert not part.exists()
    part.touch()
    os.utime(part, (0, 0))
    cache.files.sweep()
    assert (part.exists(), path.exists()) == (False, True)


def test_fetch_that_takes_long_is_not_cleared_away_for_another(tmp_path: Path):
    cache = Cache(tmp_path)
    second = cache.put("n.pt", b"x" * 40)

    def another(url: ObjectUrl) -> None:
        if url.name == "m.pt":
            cache.age()
            with pytest.raises(StorageFailed):
                cache.files.fetch(second)

    cache.store.meanwhile = another
    assert cache.files.fetch(cache.put("m.pt", b"x" * 80)).read_bytes() == b"x" * 80


def test_stopped_fetch_ends_and_leaves_nothing(tmp_path: Path):
    cache = Cache(tmp_path)
    url = cache.put("m.pt", b"x" * 80)
    with pytest.raises(TransferStopped):
        cache.files.fetch(url, is_stopped=lambda: True)
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []
    assert cache.files.find(url) is None
    path = cache.files.fetch(url)
    assert cache.files.find(url) == path
