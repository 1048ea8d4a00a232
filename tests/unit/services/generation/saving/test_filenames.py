"""Names of saved pictures, against the recorded ones."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.options import Options
from sdapi.services.generation.saving import filenames
from sdapi.services.generation.saving.filenames import NameContext, expand, sanitize

VECTORS = Path(__file__).parents[4] / "golden" / "vectors"
SANITIZED = json.loads((VECTORS / "sanitize.json").read_text("utf-8"))
OPTIONS = Options.defaults()

PROMPT = 'a (cat:1.2), "dog": <x>/y? [b:c:0.5]'
CONTEXT = NameContext(
    prompt=PROMPT,
    negative_prompt="dog, blurry",
    seed=1234,
    seeds=(1234,),
    steps=2,
    cfg_scale=7.0,
    width=128,
    height=128,
    sampler="Euler",
    model_name="tinyA",
    model_hash="f292162ba5",
    job_timestamp="20261120234916",
    now=datetime(2026, 11, 20, 23, 49, 16, tzinfo=UTC),
)


def changed(**values: object) -> NameContext:
    fields = {name: getattr(CONTEXT, name) for name in CONTEXT.__slots__}
    return NameContext(**{**fields, **values})


@pytest.mark.parametrize("text", SANITIZED)
def test_sanitizing_equals_the_recorded(text: str):
    both = [sanitize(text), sanitize(text, replace_spaces=False)]
    assert both == SANITIZED[text]


def test_half_a_surrogate_pair_does_not_reach_the_file_system():
    context = changed(prompt="a\ud800\0b")
    assert expand("[prompt_spaces]", context, OPTIONS) == "a__b"
    assert len(expand("[prompt_hash]", context, OPTIONS)) == 8


@given(st.text())
def test_sanitized_text_can_be_a_file_name(text: str):
    cleaned = sanitize(text)
    assert len(cleaned) <= 128
    assert not set(cleaned) & set('#<>:"/\\|?*\n\r\t ')


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("[seed]-[prompt_spaces]", "1234-a (cat_1.2), _dog__ _x__y_ [b_c_0.5]"),
        (
            "[model_hash]-[model_name]-[sampler]-[cfg]-[steps]x[width]x[height]",
            "f292162ba5-tinyA-Euler-7.0-2x128x128",
        ),
        ("[prompt]", "a_(cat_1.2),__dog____x__y__[b_c_0.5]"),
        ("[prompt_hash]-[negative_prompt_hash]-[full_prompt_hash]", "6a21a9a9-77eb18e4-e4a40054"),
        (
            "[scheduler]-[sampler_scheduler]-[denoising]-[clip_skip]-[vae_filename]-[user]",
            "Automatic-Euler Automatic-1-NoneType-[user]",
        ),
        ("[none]x[seed]", "x1234"),
        ("[image_hash:8]", "[image_hash:8]"),
        ("[prompt_hash:4]-[seed]", "[prompt_hash:4]-1234"),
        ("[date]", "2026-11-20"),
        ("[hasprompt<cat|yes><horse|no>]-[seed]", "catno-1234"),
        ("[bogus]-[seed]", "[bogus]-1234"),
        (
            "[job_timestamp]-[datetime<%Y>]-[datetime<%Y-%m><Asia/Tokyo>]",
            "20261120234916-2026-2026-11",
        ),
    ],
)
def test_pattern_gives_the_recorded_name(pattern: str, name: str):
    assert expand(pattern, CONTEXT, OPTIONS) == name


def test_patterns_of_a_prompt_with_styles_give_the_recorded_names():
    context = changed(
        prompt=f"{PROMPT}, oil painting, sunset",
        styles=["append style"],
        style_prompts=["oil painting, sunset"],
    )
    assert expand("[prompt_words]-[styles]", context, OPTIONS) == "a cat 1 2 dog x y b-append style"
    name = "a (cat_1.2), _dog__ _x__y_ [b_c_0.5]"
    assert expand("[prompt_no_styles]", context, OPTIONS) == name


def test_patterns_of_a_batch_give_the_recorded_names():
    pattern = "[batch_number]-[generation_number]-[batch_size]-[seed_first]-[seed_last]"
    batch = {"seeds": (1234, 1235), "batch_size": 2}
    assert expand(pattern, changed(**batch), OPTIONS) == "1-1-2-1234-1235"
    assert expand(pattern, changed(batch_index=1, **batch), OPTIONS) == "2-2-2-1234-1235"


def test_pattern_without_meaning_drops_the_text_before_it():
    assert expand("[seed]-[batch_number]-[generation_number]", CONTEXT, OPTIONS) == "1234"


def test_arguments_shorten_hashes():
    context = changed(image_bytes=lambda: b"pixels")
    assert len(expand("[prompt_hash<4>]", context, OPTIONS)) == 4
    assert len(expand("[image_hash<10>]", context, OPTIONS)) == 10
    assert len(expand("[image_hash]", context, OPTIONS)) == 64


def test_bad_time_zone_and_format_are_passed_over():
    assert expand("[datetime<%Y><Nowhere/Land>]", CONTEXT, OPTIONS) == "2026"
    assert expand("[datetime]", CONTEXT, OPTIONS) == "20261120234916"


@pytest.mark.parametrize(
    ("changes", "is_grid", "name"),
    [
        ({}, False, "1234"),
        ({"save_to_dirs": False}, False, "1234-a (cat_1.2), _dog__ _x__y_ [b_c_0.5]"),
        ({}, True, ""),
        ({"grid_extended_filename": True}, True, "1234"),
        ({"samples_filename_pattern": "../[seed]/x"}, False, ".._1234_x"),
    ],
)
def test_options_choose_the_decoration(changes: dict[str, object], is_grid: bool, name: str):
    options = OPTIONS.overlay(changes)
    assert filenames.decoration(CONTEXT, options, is_grid=is_grid) == name


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("[date]", "2026-11-20"),
        ("[model_name]/[sampler]", "tinyA/Euler"),
        ("../../etc", "etc"),
        ("/etc//x/", "etc/x"),
        ("", "."),
    ],
)
def test_subfolder_stays_below_its_parent(pattern: str, folder: str):
    options = OPTIONS.overlay({"directories_filename_pattern": pattern})
    root = Path("/data/outputs")
    assert filenames.output_directory(root, CONTEXT, options, is_grid=False) == root / folder


def test_options_switch_sub_folders_off():
    options = OPTIONS.overlay({"grid_save_to_dirs": False})
    assert filenames.output_directory(Path("o"), CONTEXT, options, is_grid=True) == Path("o")


@pytest.mark.parametrize(
    ("names", "before", "number"),
    [
        ([], "", 0),
        (["00000-1.png", "00007-2.jpg", "notes.txt"], "", 8),
        (["2026-11-20"], "", 2027),
        (["1234.png", "1234-1.png"], "", 1235),
        (["grid-0003.png", "grid-0010-x.png", "00099-1.png"], "grid-", 11),
        (["grid-0003.png"], "", 0),
    ],
)
def test_number_follows_the_highest(tmp_path: Path, names: list[str], before: str, number: int):
    for name in names:
        (tmp_path / name).touch()
    assert filenames.next_number(tmp_path, before) == number


def test_numbers_have_five_digits_and_those_of_grids_four():
    assert filenames.numbering("", "1234", "-mask.png").name(2) == "00002-1234-mask.png"
    assert filenames.numbering("grid", "", ".png").name(7) == "grid-0007.png"


@given(st.text(min_size=200))
def test_long_names_are_cut_between_characters(name: str):
    assert name.encode(errors="ignore").startswith(filenames.fit(name).encode())
    assert len(filenames.fit(name).encode()) <= 220
