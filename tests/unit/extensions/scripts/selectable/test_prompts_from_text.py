"""Lines of "Prompts from file or textbox" (webui-scripts 7)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.extensions.scripts.selectable.prompts_from_text import parse_command


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("--prompt a cat --steps 5", {"prompt": "a cat", "steps": 5}),
        ('--prompt "a  cat" on --cfg_scale 1.5', {"prompt": "a  cat on", "cfg_scale": 1.5}),
        ("--negative_prompt bad --tiling true", {"negative_prompt": "bad", "tiling": True}),
        ("--restore_faces yes", {"restore_faces": False}),
    ],
)
def test_words_are_options_with_their_values(text: str, fields: dict[str, object]):
    assert parse_command(text) == fields


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a cat --steps 5", 'must start with "--": a'),
        ("--steps", "missing argument for command line option --steps"),
        ("--colour red", "unknown commandline option: --colour"),
        ("--steps many", "many"),
        ('--prompt "a cat', "quotation"),
    ],
)
def test_what_is_no_command_says_why(text: str, words: str):
    with pytest.raises(ValueError, match=words):
        parse_command(text)


@given(st.text(max_size=60))
def test_no_text_does_more_than_fail(text: str):
    with contextlib.suppress(ValueError):
        parse_command(f"--prompt {text}")
