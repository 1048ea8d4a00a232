"""Which checkpoint serves portraits, how large it draws, and what is said to it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdapi.options import Options
from sdapi.portrait.base.checkpoints import BaseModels
from sdapi.portrait.base.native_size import native_side
from sdapi.services.catalog.catalog import DEMO_CHECKPOINT, Catalog
from sdapi.services.catalog.hashes import HashCache
from sdapi.services.server_options import ServerOptions
from sdapi.settings import Settings

SD1 = {"model.diffusion_model.out.0.weight": torch.zeros(1)}
XL = SD1 | {"conditioner.embedders.1.model.ln_final.bias": torch.zeros(1)}


def models(folder: Path, **settings: object) -> BaseModels:
    made = Settings(data_dir=folder, **settings)  # pyright: ignore[reportArgumentType]
    catalog = Catalog(made, HashCache(folder))
    return BaseModels(made, catalog, ServerOptions(Options(), made.options_file))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with one checkpoint of each kind."""
    place = tmp_path / "models" / "Stable-diffusion"
    place.mkdir(parents=True)
    save_file(XL, place / "a_large.safetensors")
    save_file(SD1, place / "b_small.safetensors")
    return tmp_path


def test_each_kind_gets_the_first_checkpoint_that_fits(folder: Path):
    found = models(folder)
    small, large = found.find("sd15"), found.find("xl")
    assert small is not None
    assert large is not None
    assert (small.checkpoint.name, small.native_side) == ("b_small.safetensors", 512)
    assert (large.checkpoint.name, large.native_side) == ("a_large.safetensors", 1024)
    assert found.anime() is None


def test_settings_name_the_checkpoint_and_the_size(folder: Path):
    found = models(
        folder, portrait_checkpoint="a_large", portrait_checkpoint_anime="b_small",
        portrait_native_size=256,
    )  # fmt: skip
    small, anime = found.find("sd15"), found.anime()
    assert small is not None
    assert anime is not None
    assert (small.checkpoint.name, small.native_side) == ("a_large.safetensors", 256)
    assert anime.checkpoint.name == "b_small.safetensors"
    assert models(folder, portrait_checkpoint="gone").find("sd15") is None


def test_the_demo_checkpoint_says_its_own_size_and_words(tmp_path: Path):
    found = models(tmp_path).find("sd15")
    assert found is not None
    assert found.checkpoint.path == DEMO_CHECKPOINT
    image_size = DEMO_CHECKPOINT.with_suffix(".yaml").read_text().split("image_size: ")[1]
    assert found.native_side == 8 * int(image_size.split()[0])
    assert found.words.trigger == "a portrait of a person"
    assert found.words.film_lora == ""
    assert models(tmp_path).find("xl") is None


def test_a_checkpoint_brings_words_in_its_metadata_file(folder: Path):
    beside = folder / "models" / "Stable-diffusion" / "b_small.json"
    beside.write_text(json.dumps({"portrait": {"native_size": 300, "trigger": "sks", "x": 1}}))
    found = models(folder).find("sd15")
    assert found is not None
    assert found.native_side == 288
    assert found.words.trigger == "sks"
    assert "photo-realistic" in found.words.positive
    beside.write_text("[]")
    assert models(folder).find("sd15") is not None


@pytest.mark.parametrize("text", ["", "a: [", "model: 1", "model: {params: {image_size: wide}}"])
def test_a_sidecar_that_says_no_size_leaves_the_usual_one(tmp_path: Path, text: str):
    sidecar = tmp_path / "x.yaml"
    sidecar.write_text(text)
    assert native_side({}, sidecar, "sd15") == 512
