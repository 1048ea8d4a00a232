import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from sdapi.services.catalog.model_files.hashes import HashCache


def file(tmp_path: Path, content: bytes = b"a", name: str = "model") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_hash_is_kept_for_the_next_start(tmp_path: Path):
    path = file(tmp_path)
    HashCache(tmp_path).compute(path).result(5)
    assert HashCache(tmp_path).get(path) == sha256(b"a")


def test_hash_of_a_changed_file_is_unknown_until_computed_again(tmp_path: Path):
    path, hashes = file(tmp_path), HashCache(tmp_path)
    hashes.compute(path).result(5)
    path.write_bytes(b"b")
    os.utime(path, ns=(1, 1))
    assert hashes.get(path) is None
    assert hashes.compute(path).result(5) == sha256(b"b")
    assert hashes.get(path) == sha256(b"b")


def test_file_that_is_gone_has_no_hash(tmp_path: Path):
    hashes = HashCache(tmp_path)
    assert hashes.get(tmp_path / "gone") is None
    with pytest.raises(FileNotFoundError):
        hashes.compute(tmp_path / "gone").result(5)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"/x": {"stamp": 1}}'])
def test_damaged_cache_file_is_forgotten(tmp_path: Path, content: str):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "hashes.json").write_text(content)
    path, hashes = file(tmp_path), HashCache(tmp_path)
    assert hashes.get(path) is None
    assert hashes.compute(path).result(5) == sha256(b"a")


def test_cache_file_is_whole_whenever_it_is_read(tmp_path: Path):
    hashes = HashCache(tmp_path)
    cache_file = tmp_path / "cache" / "hashes.json"
    paths = [file(tmp_path, b"%d" % n, f"model{n}") for n in range(60)]
    stop, broken = threading.Event(), list[str]()

    def read() -> None:
        while not stop.is_set():
            if cache_file.is_file():
                text = cache_file.read_text()
                try:
                    json.loads(text)
                except ValueError:
                    broken.append(text)

    reader = threading.Thread(target=read)
    reader.start()
    for future in [hashes.compute(path) for path in paths]:
        future.result(10)
    stop.set()
    reader.join()
    assert broken == []
    assert len(json.loads(cache_file.read_text())) == 60
    assert [p.name for p in cache_file.parent.iterdir()] == ["hashes.json"]


def test_folder_that_cannot_be_written_costs_only_the_keeping(tmp_path: Path):
    (tmp_path / "cache").write_text("in the way")
    path, hashes = file(tmp_path), HashCache(tmp_path)
    assert hashes.compute(path).result(5) == sha256(b"a")
    assert hashes.get(path) == sha256(b"a")


@pytest.mark.anyio
async def test_waiting_ends_at_the_time_limit_and_hashing_goes_on(tmp_path: Path):
    path, hashes, hold = file(tmp_path), HashCache(tmp_path), threading.Event()
    hashes._pool.submit(hold.wait, 5)  # pyright: ignore[reportPrivateUsage]
    assert await hashes.wait(path, 0.05) is None
    hold.set()
    assert await hashes.wait(path, 5) == sha256(b"a")


def test_what_was_known_first_is_forgotten_when_there_is_too_much(tmp_path: Path):
    path = file(tmp_path)
    HashCache(tmp_path).compute(path).result(5)
    cache_file = tmp_path / "cache" / "hashes.json"
    entries = json.loads(cache_file.read_text())
    entries |= {f"/gone/{n}": {"stamp": [0, 0], "sha256": "0"} for n in range(10_000)}
    cache_file.write_text(json.dumps(entries))
    hashes = HashCache(tmp_path)
    hashes.compute(file(tmp_path, b"b", "new")).result(5)
    kept = json.loads(cache_file.read_text())
    assert len(kept) == 10_000
    assert list(kept)[-1] == str(tmp_path / "new")
    assert hashes.get(path) is None
    assert hashes.compute(path).result(5) == sha256(b"a")
