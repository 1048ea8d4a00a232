from pathlib import Path

import pytest

from sdapi.errors import ModelUnusable, UnknownName
from sdapi.options import Options
from sdapi.services.catalog.model_files.hashes import HashCache
from sdapi.services.catalog.model_files.safetensors_header import sha256_of_tensors
from sdapi.services.catalog.networks import NetworkCatalog
from sdapi.services.generation.drafting.network_files import (
    resolve_networks,
    told_hashes,
    with_default_networks,
    with_local_names,
)
from sdapi.settings import Settings

DEFAULTS = Options.defaults()


@pytest.fixture
def catalog(tmp_path: Path) -> NetworkCatalog:
    for name in ("Lora/ann.safetensors", "Lora/a,b.pt", "hypernetworks/paint.pt"):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    hashes = HashCache(tmp_path, "network_hashes", sha256_of_tensors)
    return NetworkCatalog(Settings(data_dir=tmp_path), hashes)


def test_names_of_all_prompts_are_looked_up(catalog: NetworkCatalog):
    prompts = ("cat <lora:ann:1>", "dog <hypernet:paint:1> <lyco:a,b>", "<lora:gone:1>")
    found = resolve_networks(prompts, catalog, DEFAULTS, are_disabled=False)
    assert found.files.loras.keys() == found.loras.keys() == {"ann", "a,b"}
    assert found.files.hypernets.keys() == {"paint"}
    assert found.warnings == ("lora not found: gone",)


def test_a_network_that_cannot_be_read_is_told_with_its_reason(
    catalog: NetworkCatalog, tmp_path: Path
):
    assert [lora.name for lora in catalog.loras] == ["a,b", "ann"]
    (tmp_path / "models/Lora/ann.safetensors").unlink()
    (tmp_path / "models/Lora/a,b.pt").unlink()
    (tmp_path / "models/Lora/a,b.pt").symlink_to("a,b.pt")
    found = resolve_networks(("<lora:ann:1><lora:a,b:1>",), catalog, DEFAULTS, are_disabled=False)
    gone, unreadable = found.warnings
    assert gone == "lora not used: ann.safetensors: the file is gone"
    assert unreadable.startswith("lora not used: a,b.pt: cannot be read (")
    assert found.files.loras == found.loras == {}
    strict = DEFAULTS.overlay({"sdapi_strict_networks": True})
    with pytest.raises(ModelUnusable, match=r"ann\.safetensors: the file is gone"):
        resolve_networks(("<lora:ann:1>",), catalog, strict, are_disabled=False)


def test_disabled_networks_are_not_looked_for(catalog: NetworkCatalog):
    found = resolve_networks(("<lora:ann:1> <lora:gone:1>",), catalog, DEFAULTS, are_disabled=True)
    assert (found.files.loras, found.warnings) == ({}, ())


def test_default_networks_stand_at_the_end_hypernetwork_first(catalog: NetworkCatalog):
    both = {"sd_lora": "ann", "sd_hypernetwork": "paint"}
    options = DEFAULTS.overlay(both | {"extra_networks_default_multiplier": 0.5})
    added = with_default_networks("cat", catalog, options)
    assert added == "cat<hypernet:paint:0.5><lora:ann:0.5>"
    own = "cat <lora:ann:1> <hypernet:paint:1>"
    assert with_default_networks(own, catalog, options) == own
    assert with_default_networks("cat", catalog, DEFAULTS) == "cat"


@pytest.mark.anyio
async def test_names_become_hashes_in_place(catalog: NetworkCatalog):
    loras = resolve_networks(
        ("<lora:ann> <lora:a,b>",), catalog, DEFAULTS, are_disabled=False
    ).loras
    extra = {"Denoising strength": 1, "Lora hashes": ("ann", "a,b"), "TI hashes": "x"}
    unknown = await told_hashes(extra, loras, catalog, DEFAULTS, timeout_s=0)
    assert unknown == {"Denoising strength": 1, "TI hashes": "x"}
    told = await told_hashes(extra, loras, catalog, DEFAULTS, timeout_s=10)
    hashes = {name: catalog.shorthash(lora) for name, lora in loras.items()}
    assert list(told) == list(extra)
    assert told["Lora hashes"] == f"ann: {hashes['ann']}, ab: {hashes['a,b']}"
    off = DEFAULTS.overlay({"lora_add_hashes_to_infotext": False})
    assert "Lora hashes" not in await told_hashes(extra, loras, catalog, off, timeout_s=10)
    off = DEFAULTS.overlay({"textual_inversion_add_hashes_to_infotext": False})
    assert "TI hashes" not in await told_hashes(extra, loras, catalog, off, timeout_s=10)


def test_imported_prompt_calls_a_lora_as_it_is_called_here(catalog: NetworkCatalog):
    lora = catalog.lora("ann")
    catalog.hashes.compute(lora.path).result()
    parsed: dict[str, object] = {
        "Prompt": "cat <lora:anna:0.5> <lora:other:1> <lora:missing:1>",
        "Lora hashes": f"anna: {catalog.shorthash(lora)}, other: 000000000000",
    }
    renamed = with_local_names(parsed, catalog, DEFAULTS)
    assert renamed["Prompt"] == "cat <lora:ann:0.5> <lora:other:1> <lora:missing:1>"
    assert with_local_names({"Prompt": "cat"}, catalog, DEFAULTS) == {"Prompt": "cat"}


@pytest.mark.parametrize(
    ("option", "warning"),
    [("sd_lora", "lora not found: gone"), ("sd_hypernetwork", "hypernet not found: gone")],
)
def test_default_network_that_is_not_there_is_told_as_a_tag_would_be(
    catalog: NetworkCatalog, option: str, warning: str
):
    options = DEFAULTS.overlay({option: "gone"})
    assert with_default_networks("cat", catalog, options) == "cat"
    assert resolve_networks(("cat",), catalog, options, are_disabled=False).warnings == (warning,)
    assert resolve_networks(("cat",), catalog, options, are_disabled=True).warnings == ()
    strict = options.overlay({"sdapi_strict_networks": True})
    with pytest.raises(UnknownName, match=f"^{option}: {warning}; there are"):
        resolve_networks(("cat",), catalog, strict, are_disabled=False)
