import re
import time
from collections.abc import Iterator
from functools import reduce
from itertools import groupby, pairwise
from operator import mul
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.engine.text.chunks import CHUNK_TOKENS, END, START, split_chunks
from sdapi.engine.text.grammar.attention import parse_attention
from sdapi.engine.text.grammar.composition import extract_tags, split_and, strip_comments
from sdapi.engine.text.grammar.schedule import Timeline, depends_on_scheduling, schedule
from sdapi.errors import BadRequest

#: texts made of what the grammar knows, so that nesting and breakage come up often
GRAMMAR = st.lists(
    st.sampled_from([*"()[]:|,\\ ", "cat", "1.5", "0.3", "7", "BREAK", " AND ", "<lora:x:1>", "é"]),
    max_size=30,
).map("".join)
TEXTS = st.one_of(GRAMMAR, st.text(max_size=60))


@given(TEXTS)
def test_attention_survives_any_text(text: str):
    try:
        fragments = parse_attention(text)
    except BadRequest:  # `(a:1.2.3)`
        assert re.search(r":\s*[+-]?[.\d]+\s*\)", text)
        return
    assert fragments


@given(st.text(alphabet="abc é,\n", max_size=40), st.text(alphabet="abc é,", max_size=40))
def test_merged_fragments_keep_the_whole_text(one: str, two: str):
    fragments = parse_attention(f"{one}({two})")
    assert "".join(fragment.text for fragment in fragments) == one + two
    weights = [fragment.weight for fragment in fragments]
    assert all(a != b for a, b in pairwise(weights))


@given(st.integers(0, 12), st.integers(0, 12))
def test_nested_brackets_multiply(round_brackets: int, square_brackets: int):
    text = "(" * round_brackets + "[" * square_brackets + "a" + "]" * square_brackets
    (fragment,) = parse_attention(text + ")" * round_brackets)
    assert fragment.weight == pytest.approx(1.1**round_brackets / 1.1**square_brackets)


#: brackets in brackets: a word, or what is in a pair and how that is closed
CLOSINGS = {")": 1.1, "]": 1 / 1.1, ":1.3)": 1.3, ":0.7)": 0.7, ":-2)": -2.0}
NESTED = st.recursive(
    st.just("a"),
    lambda inner: st.tuples(st.lists(inner, min_size=1, max_size=3), st.sampled_from([*CLOSINGS])),
    max_leaves=20,
)


def weights(node: Any, *outer: float) -> Iterator[float]:
    """A weight for each word, multiplied from the innermost bracket outwards."""
    if node == "a":
        yield reduce(mul, outer, 1.0)
        return
    for each in node[0]:
        yield from weights(each, CLOSINGS[node[1]], *outer)


def written(node: Any) -> str:
    if node == "a":
        return "a"
    return ("[" if node[1] == "]" else "(") + "".join(map(written, node[0])) + node[1]


@given(NESTED)
def test_weights_are_multiplied_from_the_inside_to_the_last_bit(tree: Any):
    expected = [(weight, len(list(run))) for weight, run in groupby(weights(tree))]
    found = [(each.weight, len(each.text)) for each in parse_attention(written(tree))]
    assert found == expected


@given(TEXTS, st.integers(1, 60), st.booleans())
def test_schedule_of_any_text_rises_and_ends_at_the_last_step(text: str, steps: int, is_old: bool):
    made = schedule(text, Timeline(steps, use_old_scheduling=is_old))
    ends = [each.end_step for each in made]
    assert ends == sorted(set(ends))
    assert ends[-1] == steps
    assert ends[0] >= 1


def test_old_scheduling_counts_a_hires_pass_by_the_steps_of_the_first():
    made = schedule("[a:b:0.5]", Timeline(2, first_pass_steps=4, use_old_scheduling=True))
    assert [(each.end_step, each.text) for each in made] == [(2, "a"), (4, "b")]


@pytest.mark.parametrize(
    ("prompt", "timeline", "depends"),
    [
        ("a cat", Timeline(6), False),
        ("[a:b:0.5]", Timeline(6), False),
        ("[a:b:1.0]", Timeline(6), True),
        ("[a:b:3]", Timeline(6), False),
        ("a cat", Timeline(6, first_pass_steps=4), False),
        ("[a:b:0.5]", Timeline(6, first_pass_steps=4), True),
    ],
)
def test_only_edits_that_two_ways_of_counting_part_depend_on_it(
    prompt: str, timeline: Timeline, depends: bool
):
    assert depends_on_scheduling(prompt, timeline) is depends


@given(st.text(alphabet="abc é,.\n", max_size=40), st.integers(1, 60))
def test_text_without_brackets_is_scheduled_as_it_is(text: str, steps: int):
    assert [(t.end_step, t.text) for t in schedule(text, Timeline(steps))] == [(steps, text)]


@given(st.integers(2, 5), st.integers(1, 40))
def test_alternation_takes_turns(options: int, steps: int):
    names = [f"n{index}" for index in range(options)]
    made = schedule(f"[{'|'.join(names)}]", Timeline(steps))
    assert [t.text for t in made] == [names[step % options] for step in range(steps)]


def test_deep_nesting_is_neither_slow_nor_an_overflow():
    for text in ("[" * 3000, "(" * 3000 + ")" * 3000, "[a:" * 400 + ":3]" * 400):
        assert schedule(text, Timeline(10))[-1].end_step == 10


@given(TEXTS)
def test_composition_never_loses_words(text: str):
    parts = split_and(text)
    assert len(parts) == len(re.split(r"\bAND\b", text))


@given(TEXTS)
def test_tags_are_gone_after_they_were_taken_out(text: str):
    rest, tags = extract_tags(text)
    if not tags:
        assert rest == text
    for tag in tags:
        assert re.fullmatch(r"\w+", tag.kind)


def test_comments_are_removed_but_not_the_lines_around_them():
    assert strip_comments("a cat # nice\nb\n# whole line\nc") == "a cat \nb\nc"


@given(TEXTS, st.integers(0, 40))
def test_chunks_of_any_text_are_whole_and_framed(text: str, backtrack: int):
    def tokenize(text: str) -> list[int]:
        return [
            267 if letter == "," else 300 + ord(letter) % 1000 for letter in text if letter > " "
        ]

    try:
        chunks = split_chunks(text, tokenize, comma_backtrack=backtrack)
    except BadRequest:
        return
    assert chunks
    for chunk in chunks:
        assert len(chunk.tokens) == len(chunk.weights) == CHUNK_TOKENS + 2
        assert (chunk.tokens[0], chunk.tokens[-1]) == (START, END)


def test_a_chunk_breaks_after_its_last_near_comma():
    def tokenize(text: str) -> list[int]:
        return [267 if letter == "," else 300 for letter in text]

    near = "a" * 70 + "," + "b" * 10
    assert split_chunks(near, tokenize)[0].tokens.index(END) == 72
    assert split_chunks(near, tokenize, comma_backtrack=0)[0].tokens.index(END) == 76


@pytest.mark.parametrize(
    "prompt",
    [
        "a" + " " * 30_000 + "b",
        "<a:" * 10_000,
        "a" + " :" * 15_000,
        "BREAK " * 5_000,
        "(a)" * 10_000,
        "([" * 95 + "a:" * 100_000,
        "(" * 190 + "a:" * 100_000 + ")" * 190,
    ],
    ids=["spaces", "tags", "colons", "breaks", "brackets", "open", "nested"],
)
def test_long_prompts_are_read_in_linear_time(prompt: str):
    started = time.process_time()
    rest, _ = extract_tags(prompt)
    for part in split_and(rest):
        parse_attention(part.text)
    assert time.process_time() - started < 2


def test_prompt_that_nests_too_deep_is_refused():
    with pytest.raises(BadRequest, match="brackets"):
        parse_attention("(a" * 500)


@pytest.mark.parametrize("prompt", ["(a:" + "9" * 60 + ")", "a :" + "9" * 60 + " AND b"])
def test_weight_that_no_arithmetic_survives_is_refused(prompt: str):
    with pytest.raises(BadRequest, match="weight"):
        [parse_attention(part.text) for part in split_and(prompt)]
