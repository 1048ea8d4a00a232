"""Which checkpoint serves portraits, how large it draws, and what is said to it."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdapi.options import Options
from sdapi.portrait.base.checkpoints import BaseModels
from sdapi.portrait.base.native_size import native_side
from sdapi.portrait.creation.drawing.bases import Bases
from sdapi.services.catalog.catalog import DEMO_CHECKPOINT, Catalog
from sdapi.services.catalog.model_files.hashes import HashCache
from sdapi.services.options.server_options import ServerOptions
from sdapi.settings import Settings

UNET = {"model.diffusion_model.out.0.weight": torch.zeros(1)}
SD1 = UNET | {"cond_stage_model.transformer.text_model.final_layer_norm.bias": torch.zeros(1)}
SD2 = UNET | {"cond_stage_model.model.ln_final.bias": torch.zeros(1)}
XL = UNET | {"conditioner.embedders.1.model.ln_final.bias": torch.zeros(1)}
REFINER = UNET | {"conditioner.embedders.0.model.ln_final.bias": torch.zeros(1)}
NINE = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 9, 3, 3)}


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
    save_file(SD1, folder / "models" / "Stable-diffusion" / "c_small.safetensors")
    found = models(
        folder, portrait_checkpoint="c_small", portrait_checkpoint_anime="b_small",
        portrait_native_size=256,
    )  # fmt: skip
    small, anime = found.find("sd15"), found.anime()
    assert small is not None
    assert anime is not None
    assert (small.checkpoint.name, small.native_side) == ("c_small.safetensors", 256)
    assert anime.checkpoint.name == "b_small.safetensors"
    assert models(folder, portrait_checkpoint="gone").find("sd15") is None
    assert models(folder, portrait_checkpoint="a_large").find("sd15") is None


def test_what_draws_no_portraits_is_passed_over(tmp_path: Path):
    place = tmp_path / "models" / "Stable-diffusion"
    place.mkdir(parents=True)
    for name, tensors in {
        "a_refiner": REFINER, "b_two": SD2, "c_inpaint": SD1 | NINE, "d_xl_inpaint": XL | NINE,
    }.items():  # fmt: skip
        save_file(tensors, place / f"{name}.safetensors")
    for name, unet in {"e_two": (4, 1024), "f_inpaint": (9, 768)}.items():
        (place / name / "unet").mkdir(parents=True)
        (place / name / "model_index.json").write_text("{}")
        config = {"in_channels": unet[0], "cross_attention_dim": unet[1]}
        (place / name / "unet" / "config.json").write_text(json.dumps(config))
    found = models(tmp_path)
    assert (found.find("sd15"), found.find("xl")) == (None, None)
    save_file(SD1, place / "z.safetensors")
    small = found.find("sd15") or models(tmp_path).find("sd15")
    assert small is not None
    assert small.checkpoint.name == "z.safetensors"


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


@pytest.mark.parametrize("told", [0.001, 3])
def test_a_checkpoint_brings_numbers_that_suit_it(folder: Path, told: float):
    beside = folder / "models" / "Stable-diffusion" / "b_small.json"
    beside.write_text(json.dumps({"portrait": {"learning_rate": told, "cfg_scale": told}}))
    found = models(folder).find("sd15")
    assert found is not None
    assert (found.learning_rate, found.cfg_scale) == (told, told)


@pytest.mark.parametrize(
    ("name", "told"),
    [("learning_rate", x) for x in (0, -1.0, True, "1e-3", 1e999, 10**400, float("nan"), [1])]
    + [("train_convolutions", x) for x in (1, "yes", [])]
    + [("square_templates", x) for x in (0, "no")],
)
def test_what_suits_nothing_acts_as_if_left_out_and_is_named_once(
    folder: Path, name: str, told: object, caplog: pytest.LogCaptureFixture
):
    beside = folder / "models" / "Stable-diffusion" / "b_small.json"
    beside.write_text(json.dumps({"portrait": {name: told}}))
    bases = models(folder)
    for _ in range(2):
        found = bases.find("sd15")
        assert found is not None
        assert (found.learning_rate, found.trains_convolutions) == (None, False)
        assert not found.has_square_templates
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"portrait.{name} of b_small.safetensors" in caplog.text


@pytest.mark.parametrize(
    ("trained", "square"), [(True, False), (False, True), (None, True), (True, None)]
)
def test_a_checkpoint_says_whether_its_convolutions_are_trained_and_templates_are_square(
    folder: Path, trained: bool | None, square: bool | None
):
    beside = folder / "models" / "Stable-diffusion" / "b_small.json"
    own = {"train_convolutions": trained, "square_templates": square, "cfg_scale": 3}
    beside.write_text(json.dumps({"portrait": own}))
    found, target = models(folder).find("sd15"), Bases(models(folder)).find("sd15")
    assert found is not None
    assert target is not None
    assert (found.trains_convolutions, found.has_square_templates) == (bool(trained), bool(square))
    assert (target[0].has_square_templates, target[0].cfg_scale) == (bool(square), 3)


def test_the_demo_says_what_suits_it(tmp_path: Path):
    demo = models(tmp_path).find("sd15")
    assert demo is not None
    assert (demo.checkpoint.path, demo.native_side) == (DEMO_CHECKPOINT, 256)
    assert (demo.cfg_scale, demo.learning_rate) == (2, 5e-4)
    assert demo.trains_convolutions
    assert demo.has_square_templates


@pytest.mark.parametrize("text", ["", "a: [", "model: 1", "model: {params: {image_size: wide}}"])
def test_a_sidecar_that_says_no_size_leaves_the_usual_one(tmp_path: Path, text: str):
    sidecar = tmp_path / "x.yaml"
    sidecar.write_text(text)
    assert native_side({}, sidecar, "sd15") == 512


def test_a_name_that_does_not_serve_is_told_once_until_it_does(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    found = models(folder, portrait_checkpoint="gone", portrait_checkpoint_xl="b_small")
    for _ in range(3):
        assert found.find("sd15") is None
        assert found.find("xl") is None
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("no portraits of sd15: ")
    assert told[1] == "no portraits of xl: b_small is a checkpoint of another kind"
    place = folder / "models" / "Stable-diffusion"
    (place / "b_small.safetensors").unlink()
    save_file(XL, place / "b_small.safetensors")
    assert found.find("xl") is not None
    save_file(SD1, place / "b_small.safetensors")
    os.utime(place / "b_small.safetensors", ns=(1, 1))
    assert found.find("xl") is None
    assert len(caplog.records) == 3


def test_a_file_that_changes_is_looked_into_again_and_one_that_goes_is_forgotten(folder: Path):
    made = Settings(data_dir=folder)
    catalog = Catalog(made, HashCache(folder))
    found = BaseModels(made, catalog, ServerOptions(Options(), made.options_file))
    changing = folder / "models" / "Stable-diffusion" / "b_small.safetensors"
    for number in range(5):
        save_file(XL if number % 2 else SD1, changing)
        os.utime(changing, ns=(number, number))
        assert (found.find("sd15") is None) == bool(number % 2)
    assert len(found._kinds) == 2  # pyright: ignore[reportPrivateUsage]
    changing.unlink()
    catalog.refresh()
    found.find("sd15")
    assert changing not in found._kinds  # pyright: ignore[reportPrivateUsage]
