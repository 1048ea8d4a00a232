"""The prompt parsers against the reference's, text by text."""

import json
from pathlib import Path
from typing import Any

import pytest

from sdapi.engine.text.chunks import split_chunks
from sdapi.engine.text.grammar.attention import parse_attention
from sdapi.engine.text.grammar.composition import extract_tags, split_and
from sdapi.engine.text.grammar.schedule import Timeline, schedule
from sdapi.engine.text.tokenizer import shared_tokenizer

VECTORS = Path(__file__).parents[1] / "golden" / "vectors"
RECORDED: dict[str, Any] = json.loads((VECTORS / "prompt_parser.json").read_text())
TOKENS: dict[str, Any] = json.loads((VECTORS / "tokens.json").read_text())
#: written out where the record has only a name for them
TAGGED = {
    "l1": "a <lora:x:0.5:0.3> b <hypernet:y:1>",
    "l2": "<lora:x:te=0.1:unet=0.5:dyn=4>",
    "l3": "<lora:a b c>",
}
PROMPTS: dict[str, str] = RECORDED["prompts"] | TAGGED
#: without the texts that name embeddings, whose tokens are vectors
PLAIN = sorted(name for name in TOKENS if name in PROMPTS and name not in ("ti", "ti2"))


@pytest.mark.parametrize("name", RECORDED["attention"])
def test_attention_is_parsed_as_recorded(name: str):
    found = parse_attention(PROMPTS[name])
    expected = RECORDED["attention"][name]
    assert [fragment.text for fragment in found] == [text for text, _ in expected]
    assert [f.weight for f in found] == pytest.approx([weight for _, weight in expected], rel=1e-9)


@pytest.mark.parametrize("key", RECORDED["schedules"])
def test_prompt_is_scheduled_as_recorded(key: str):
    name, steps, options = key.split("|", 2)
    count, given = int(steps.removeprefix("steps=")), json.loads(options)
    hires = given.get("hires_steps")
    timeline = Timeline(
        count if hires is None else hires,
        None if hires is None else count,
        given.get("use_old_scheduling", False),
    )
    found = [[text.end_step, text.text] for text in schedule(PROMPTS[name], timeline)]
    assert found == RECORDED["schedules"][key]


@pytest.mark.parametrize("name", RECORDED["multicond"])
def test_prompt_is_split_at_and_as_recorded(name: str):
    recorded = RECORDED["multicond"][name]
    expected = [(recorded["flat"][index], weight) for index, weight in recorded["res_indexes"][0]]
    assert [(part.text, part.weight) for part in split_and(PROMPTS[name])] == expected


@pytest.mark.parametrize("name", RECORDED["extra_networks"])
def test_network_tags_are_taken_out_as_recorded(name: str):
    text, recorded = RECORDED["extra_networks"][name]
    rest, tags = extract_tags(PROMPTS[name])
    found: dict[str, list[list[str]]] = {}
    for tag in tags:
        found.setdefault(tag.kind, []).append([*tag.args, *(f"{k}={v}" for k, v in tag.named)])
    assert (rest, found) == (text, recorded)


@pytest.mark.parametrize("name", PLAIN)
def test_text_is_tokenised_as_recorded(name: str):
    chunks = split_chunks(PROMPTS[name], shared_tokenizer())
    recorded = TOKENS[name]["chunks"]
    assert [list(chunk.tokens) for chunk in chunks] == [each["tokens"] for each in recorded]
    for chunk, each in zip(chunks, recorded, strict=True):
        assert chunk.weights == pytest.approx(each["multipliers"], rel=1e-6)
