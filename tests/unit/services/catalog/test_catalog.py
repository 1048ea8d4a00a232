import hashlib
import json
from pathlib import Path

import pytest

from sdapi.errors import NoCheckpoint, UnknownName
from sdapi.services.catalog.catalog import Catalog
from sdapi.services.catalog.model_files.hashes import HashCache
from sdapi.settings import Settings


class Disk:
    """A data directory with model files of any content."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints = root / "models" / "Stable-diffusion"
        self.vaes = root / "models" / "VAE"
        self.checkpoints.mkdir(parents=True)
        self.vaes.mkdir()
        self.hashes = HashCache(root)

    def checkpoint(self, name: str, content: bytes = b"weights") -> Path:
        path = self.checkpoints / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def vae(self, name: str) -> Path:
        (self.vaes / name).write_bytes(b"vae")
        return self.vaes / name

    def catalog(self, **settings: object) -> Catalog:
        return Catalog(Settings(data_dir=self.root, **settings), self.hashes)

    def hash(self, path: Path) -> str:
        return self.hashes.compute(path).result(5)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_titles_show_the_short_hash_once_it_is_known(disk: Disk):
    path = disk.checkpoint("sub/Model v1.safetensors")
    catalog = disk.catalog()
    (found,) = catalog.checkpoints
    assert (found.title, found.shorthash) == ("sub/Model v1.safetensors", None)
    sha256 = disk.hash(path)
    assert sha256 == hashlib.sha256(b"weights").hexdigest()
    (found,) = catalog.checkpoints
    assert found.title == f"sub/Model v1.safetensors [{sha256[:10]}]"
    assert found.short_title == f"Model v1 [{sha256[:10]}]"
    assert (found.name_for_extra, found.model_name) == ("Model v1", "sub_Model v1")


@pytest.mark.parametrize(
    "alias",
    [
        "sub/one.safetensors",
        "sub/one.safetensors [{short}]",
        "sub_one",
        "one",
        "{short}",
        "{sha256}",
        "one [{short}]",
    ],
)
def test_every_alias_names_its_checkpoint(disk: Disk, alias: str):
    disk.checkpoint("other.ckpt", b"other")
    sha256 = disk.hash(disk.checkpoint("sub/one.safetensors"))
    name = alias.format(short=sha256[:10], sha256=sha256)
    assert disk.catalog().checkpoint(name).name == "sub/one.safetensors"


def test_legacy_hash_names_its_checkpoint(disk: Disk):
    content = bytes(0x100000) + b"here" * 0x4000
    disk.checkpoint("big.safetensors", content)
    legacy = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    catalog = disk.catalog()
    assert catalog.checkpoint(legacy).name == "big.safetensors"
    assert catalog.checkpoint(f"big.safetensors [{legacy}]").name == "big.safetensors"


def test_closest_checkpoint_is_the_shortest_title_that_holds_the_text(disk: Disk):
    for name in ("anything-v5.safetensors", "anything-v5-inpainting.safetensors"):
        disk.checkpoint(name)
    catalog = disk.catalog()
    assert catalog.closest_checkpoint("thing").name == "anything-v5.safetensors"
    assert catalog.closest_checkpoint("v5-in [0123456789]").name.startswith("anything-v5-inp")
    with pytest.raises(UnknownName):
        catalog.closest_checkpoint("")


def test_unknown_name_lists_the_near_titles(disk: Disk):
    for name in ("deliberate_v2.safetensors", "zzz.safetensors"):
        disk.checkpoint(name)
    with pytest.raises(UnknownName, match=r"'deliberate_v3' not found.*'deliberate_v2\.safe"):
        disk.catalog().checkpoint("deliberate_v3")


def test_listing_is_sorted_as_people_count(disk: Disk):
    for name in ("v10.ckpt", "V2.ckpt", "v1.ckpt", "a/x.ckpt"):
        disk.checkpoint(name)
    assert [c.name for c in disk.catalog().checkpoints] == [
        "a/x.ckpt",
        "v1.ckpt",
        "V2.ckpt",
        "v10.ckpt",
    ]


def test_vaes_beside_checkpoints_are_no_checkpoints(disk: Disk):
    disk.checkpoint("one.safetensors")
    disk.checkpoint("one.vae.pt")
    disk.checkpoint("readme.txt")
    catalog = disk.catalog()
    assert [c.name for c in catalog.checkpoints] == ["one.safetensors"]
    assert [v.name for v in catalog.vaes] == ["one.vae.pt"]


def test_sidecar_belongs_to_the_checkpoint_of_its_name(disk: Disk):
    path = disk.checkpoint("one.safetensors")
    path.with_suffix(".yaml").write_text("model: {}")
    disk.checkpoint("two.safetensors")
    one, two = disk.catalog().checkpoints
    assert (one.sidecar, two.sidecar) == (path.with_suffix(".yaml"), None)
    assert one.sidecar == path.with_suffix(".yaml")


def test_diffusers_folder_is_one_checkpoint(disk: Disk):
    disk.checkpoint("folder/model_index.json", b"{}")
    disk.checkpoint("folder/unet/diffusion_pytorch_model.safetensors")
    assert [c.name for c in disk.catalog().checkpoints] == ["folder"]


def test_refresh_finds_what_came_and_forgets_what_went(disk: Disk):
    first = disk.checkpoint("a.ckpt")
    catalog = disk.catalog()
    first.unlink()
    disk.checkpoint("b.ckpt")
    assert [c.name for c in catalog.checkpoints] == ["a.ckpt"]
    catalog.refresh()
    assert [c.name for c in catalog.checkpoints] == ["b.ckpt"]


def test_ckpt_flag_adds_a_file_from_anywhere(disk: Disk, tmp_path: Path):
    disk.checkpoint("a.ckpt")
    elsewhere = tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes(b"x")
    catalog = disk.catalog(ckpt=str(elsewhere))
    assert [c.name for c in catalog.checkpoints] == ["elsewhere.safetensors", "a.ckpt"]
    assert catalog.default_checkpoint("").name == "elsewhere.safetensors"


def test_default_is_the_configured_one_then_the_flag_then_the_first(disk: Disk):
    for name in ("a.ckpt", "b.ckpt", "c.ckpt"):
        disk.checkpoint(name)
    catalog = disk.catalog(ckpt="b")
    assert catalog.default_checkpoint("c.ckpt").name == "c.ckpt"
    assert catalog.default_checkpoint("").name == "b.ckpt"
    assert catalog.default_checkpoint("gone").name == "b.ckpt"
    assert disk.catalog().default_checkpoint("").name == "a.ckpt"


def test_without_any_checkpoint_the_folder_to_fill_is_named(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.services.catalog.catalog.DEMO_CHECKPOINT", disk.root / "no-demo")
    with pytest.raises(NoCheckpoint, match=str(disk.checkpoints)):
        disk.catalog().default_checkpoint("")


class TestVAE:
    """Which VAE a checkpoint is drawn with."""

    def chosen(self, disk: Disk, option: str, *, overrides: bool = True, **settings: object):
        catalog = disk.catalog(**settings)
        found = catalog.vae_for(catalog.checkpoints[0], option, overrides=overrides)
        return found.name if found else None

    def test_automatic_without_any_is_the_checkpoints_own(self, disk: Disk):
        disk.checkpoint("one.safetensors")
        assert self.chosen(disk, "Automatic") is None

    def test_automatic_takes_the_one_beside_the_checkpoint(self, disk: Disk):
        disk.checkpoint("one.safetensors")
        disk.checkpoint("one.vae.pt")
        disk.vae("other.safetensors")
        assert self.chosen(disk, "Automatic") == "one.vae.pt"

    def test_automatic_takes_the_one_in_the_users_metadata_first(self, disk: Disk):
        path = disk.checkpoint("one.safetensors")
        disk.checkpoint("one.vae.pt")
        disk.vae("other.safetensors")
        path.with_suffix(".json").write_text(json.dumps({"vae": "other.safetensors"}))
        assert self.chosen(disk, "Automatic") == "other.safetensors"
        path.with_suffix(".json").write_text(json.dumps({"vae": "None"}))
        assert self.chosen(disk, "Automatic") is None

    def test_named_one_wins_when_the_option_overrides(self, disk: Disk):
        disk.checkpoint("one.safetensors")
        disk.checkpoint("one.vae.pt")
        disk.vae("other.safetensors")
        assert self.chosen(disk, "other.safetensors") == "other.safetensors"
        assert self.chosen(disk, "None") is None
        assert self.chosen(disk, "other.safetensors", overrides=False) == "one.vae.pt"

    def test_flag_wins_over_everything(self, disk: Disk):
        disk.checkpoint("one.safetensors")
        path = disk.vae("flag.pt")
        assert self.chosen(disk, "None", vae_path=path) == "flag.pt"

    def test_unknown_one_is_refused_with_the_near_names(self, disk: Disk):
        disk.checkpoint("one.safetensors")
        disk.vae("kl-f8.pt")
        with pytest.raises(UnknownName, match=r"VAE 'kl-f9\.pt' not found.*'kl-f8\.pt'"):
            self.chosen(disk, "kl-f9.pt")
