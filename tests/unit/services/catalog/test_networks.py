import hashlib
import json
import os
from pathlib import Path

import pytest

from sdapi.services.catalog.model_files.hashes import HashCache
from sdapi.services.catalog.model_files.safetensors_header import read_metadata, sha256_of_tensors
from sdapi.services.catalog.networks import NetworkCatalog
from sdapi.settings import Settings


def write(path: Path, data: bytes = b"tensors", **metadata: str) -> Path:
    header = json.dumps({"__metadata__": metadata}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "Lora"


@pytest.fixture
def catalog(tmp_path: Path) -> NetworkCatalog:
    hashes = HashCache(tmp_path, "network_hashes", sha256_of_tensors)
    return NetworkCatalog(Settings(data_dir=tmp_path), hashes)


def found(catalog: NetworkCatalog, name: str) -> str | None:
    lora = catalog.lora(name)
    return lora and lora.path.name


def test_base_name_and_alias_find_a_file_in_any_folder(tmp_path: Path, catalog: NetworkCatalog):
    write(tmp_path / "models/Lora/people/ann_v2.safetensors", ss_output_name="ann")
    write(tmp_path / "models/LyCORIS/style.safetensors")
    assert found(catalog, "ann_v2") == found(catalog, "ann") == "ann_v2.safetensors"
    assert found(catalog, "style") == "style.safetensors"
    assert found(catalog, "Ann") is None


def test_alias_of_two_files_is_forbidden_and_base_names_still_work(
    folder: Path, catalog: NetworkCatalog
):
    write(folder / "one.safetensors", ss_output_name="last")
    write(folder / "two.safetensors", ss_output_name="last")
    assert found(catalog, "last") is None
    assert (found(catalog, "one"), found(catalog, "two")) == ("one.safetensors", "two.safetensors")
    one = catalog.lora("one")
    assert catalog.preferred_name(one, "Alias from file") == "one"


def test_none_is_no_alias(folder: Path, catalog: NetworkCatalog):
    write(folder / "one.safetensors", ss_output_name="None")
    assert found(catalog, "None") is None
    assert found(catalog, "one") == "one.safetensors"


def test_preferred_name_is_the_alias_unless_the_option_says_filename(
    folder: Path, catalog: NetworkCatalog
):
    write(folder / "one.safetensors", ss_output_name="ann")
    lora = catalog.lora("one")
    assert catalog.preferred_name(lora, "Alias from file") == "ann"
    assert catalog.preferred_name(lora, "Filename") == "one"


def test_unknown_name_makes_it_look_again(folder: Path, catalog: NetworkCatalog):
    assert found(catalog, "late") is None
    write(folder / "late.safetensors")
    assert found(catalog, "late") == "late.safetensors"


def test_file_that_was_replaced_has_its_new_alias(folder: Path, catalog: NetworkCatalog):
    path = write(folder / "one.safetensors", ss_output_name="old")
    assert found(catalog, "old")
    write(path, ss_output_name="newer")
    assert found(catalog, "newer") == "one.safetensors"


def test_hash_is_of_the_tensors_alone(folder: Path, catalog: NetworkCatalog):
    write(folder / "one.safetensors", b"same", ss_comment="a")
    write(folder / "two.safetensors", b"same", ss_comment="another")
    lora = catalog.lora("one")
    assert catalog.shorthash(lora) is None
    catalog.hashes.compute(lora.path).result()
    assert catalog.shorthash(lora) == hashlib.sha256(b"same").hexdigest()[:12]
    assert sha256_of_tensors(catalog.lora("two").path) == sha256_of_tensors(lora.path)


def test_hash_of_a_pickle_is_of_the_whole_file(tmp_path: Path):
    path = tmp_path / "old.pt"
    path.write_bytes(b"whatever")
    assert sha256_of_tensors(path) == hashlib.sha256(b"whatever").hexdigest()


def test_hash_that_a_file_tells_is_believed(folder: Path, catalog: NetworkCatalog):
    write(folder / "one.safetensors", sshs_model_hash="0123456789abcdef")
    assert catalog.shorthash(catalog.lora("one")) == "0123456789ab"


@pytest.mark.parametrize("data", [b"", b"\xff" * 20, b"\x05\0\0\0\0\0\0\0[1,2]", b"\2" * 8 + b"{}"])
def test_broken_header_is_no_metadata(folder: Path, catalog: NetworkCatalog, data: bytes):
    folder.mkdir(parents=True)
    path = folder / "broken.safetensors"
    path.write_bytes(data)
    assert read_metadata(path) == {}
    assert found(catalog, "broken") == "broken.safetensors"


def test_hypernetworks_are_known_by_base_name(tmp_path: Path, catalog: NetworkCatalog):
    folder = tmp_path / "models" / "hypernetworks"
    folder.mkdir(parents=True)
    for name in ("a.pt", "None.pt", "b.txt"):
        (folder / name).write_bytes(b"x")
    assert catalog.hypernetworks.keys() == {"a"}
    assert catalog.hypernetwork("b") is None


def test_embeddings_are_scanned_again_when_a_folder_changes(
    tmp_path: Path, catalog: NetworkCatalog
):
    folder = tmp_path / "embeddings" / "deep"
    folder.mkdir(parents=True)
    (folder / "one.pt").write_bytes(b"x")
    (folder / "one.preview.png").write_bytes(b"x")
    first = catalog.embeddings()
    assert [file.path.name for file in first] == ["one.pt"]
    assert catalog.embeddings() is first
    (folder / "two.safetensors").write_bytes(b"x")
    os.utime(folder, ns=(1, 1))
    assert [file.path.name for file in catalog.embeddings()] == ["one.pt", "two.safetensors"]
