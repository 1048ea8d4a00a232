"""Styles: reading, applying, finding them again."""

from pathlib import Path

import pytest

from sdapi.services.catalog.styles import Style, Styles

GOLDEN = Path(__file__).parents[3] / "golden"


@pytest.fixture
def styles() -> Styles:
    return Styles.load(GOLDEN / "styles.csv")


def test_file_holds_the_styles_in_order(styles: Styles):
    assert [style.name for style in styles] == ["tiny style", "append style"]
    assert styles["append style"] == Style("append style", "oil painting, sunset", "lowres, bad")


def test_applying_equals_the_recorded_prompts(styles: Styles):
    prompt, negative = "a photo of a cat", "dog, blurry"
    assert styles.apply(prompt, negative, ["tiny style"]) == (
        "masterpiece, a photo of a cat, high detail",
        "dog, blurry, blurry",
    )
    assert styles.apply(prompt, negative, ["append style"]) == (
        "a photo of a cat, oil painting, sunset",
        "dog, blurry, lowres, bad",
    )


def test_unknown_style_is_empty_and_strips_the_prompt(styles: Styles):
    assert styles.apply(" cat ", "", ["nothing"]) == ("cat", "")


def test_every_mark_is_replaced():
    styles = Styles([Style("twice", "{prompt} and {prompt}")])
    assert styles.apply("x", "", ["twice"]) == ("x and x", "")


@pytest.mark.parametrize("names", [[], ["tiny style"], ["append style", "tiny style"]])
def test_extracting_undoes_applying(styles: Styles, names: list[str]):
    merged = styles.apply("cat", "dog", names)
    assert styles.extract(*merged) == (names, "cat", "dog")


def test_style_without_text_is_never_found():
    assert Styles([Style("empty")]).extract("cat", "") == ([], "cat", "")


def test_old_files_comments_and_a_byte_order_mark_are_understood(tmp_path: Path):
    path = tmp_path / "styles.csv"
    path.write_bytes('\ufeffname,text\nold,"a, b"\n# note,x\n'.encode())
    assert list(Styles.load(path, tmp_path / "missing.csv")) == [Style("old", "a, b", "")]


def test_later_files_win(tmp_path: Path):
    for name, prompt in (("a.csv", "one"), ("b.csv", "two")):
        (tmp_path / name).write_text(f"name,prompt,negative_prompt\ns,{prompt},\n")
    assert Styles.load(tmp_path / "a.csv", tmp_path / "b.csv")["s"].prompt == "two"
