"""Prompts in compel's grammar: what is refused, and what the encodings are."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdapi.engine.checkpoints.checkpoint import load_checkpoint
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.text.cond import BatchCond
from sdapi.engine.text.conditioning import Conditioner
from sdapi.engine.text.grammar import compel_prompts
from sdapi.engine.text.grammar.schedule import Timeline
from sdapi.engine.text.text_options import TextOptions
from sdapi.errors import BadRequest
from tests.models.builders import build_sdxl

OPTIONS = TextOptions(attention="compel")
FP32 = Precision(torch.float32, torch.float32)


@pytest.fixture(scope="module")
def sd1(golden: Path) -> Conditioner:
    models = golden / "models"
    return Conditioner(load_checkpoint(models / "tinyA.safetensors", models / "tinyA.yaml", FP32))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Conditioner:
    path = build_sdxl().write(tmp_path_factory.mktemp("sdxl") / "a.safetensors")
    return Conditioner(load_checkpoint(path, None, FP32))


def batch(
    conditioner: Conditioner, prompt: str, negative: str = "", options: TextOptions = OPTIONS
) -> BatchCond:
    with torch.inference_mode():
        return conditioner.batch([prompt], [negative], Timeline(10), options)


def cross(conditioner: Conditioner, prompt: str) -> torch.Tensor:
    return batch(conditioner, prompt).positive[0][0].schedule.at(0).cross


@pytest.mark.parametrize("model", ["sd1", "sdxl"])
def test_plain_prompt_is_encoded_as_in_the_webuis_mode(model: str, request: pytest.FixtureRequest):
    conditioner: Conditioner = request.getfixturevalue(model)
    webui = batch(conditioner, "a red bird", "a dog", TextOptions())
    compel = batch(conditioner, "a red bird", "a dog")
    for one, other in zip(
        (webui.positive[0][0].schedule.at(0), webui.negative[0].at(0)),
        (compel.positive[0][0].schedule.at(0), compel.negative[0].at(0)),
        strict=True,
    ):
        assert torch.allclose(one.cross, other.cross, atol=1e-5)
        if one.pooled is not None:
            assert other.pooled is not None
            assert torch.allclose(one.pooled, other.pooled, atol=1e-5)
            assert torch.equal(one.sizes, other.sizes)


def test_clip_skip_chooses_the_layer_of_sd1(sd1: Conditioner):
    skipped = [
        batch(sd1, "a cat", "", TextOptions(attention=attention, clip_skip=2))
        for attention in ("webui", "compel")
    ]
    one, other = (each.positive[0][0].schedule.at(0).cross for each in skipped)
    assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(one, cross(sd1, "a cat"), atol=1e-3)


def test_weights_are_compels(sd1: Conditioner):
    plain, strong = cross(sd1, "a cat"), cross(sd1, "a (cat)1.5")
    empty = cross(sd1, "")
    changed = (plain != strong).any(-1).nonzero()[:, 0].tolist()
    assert changed == [2]  # start, "a", "cat"
    assert torch.allclose(strong[2], empty[2] + (plain[2] - empty[2]) * 1.5, atol=1e-5)


def test_weight_below_one_blends_with_the_prompt_without_the_word(sd1: Conditioner):
    weak, plain = cross(sd1, "a (cat)0.5"), cross(sd1, "a cat")
    assert not torch.allclose(weak, plain, atol=1e-3)
    assert torch.equal(weak[:2], plain[:2])


def test_webuis_own_marks_mean_nothing(sd1: Conditioner):
    assert batch(sd1, "a cat AND a dog").positive[0][0].weight == 1.0
    assert len(batch(sd1, "a cat AND a dog").positive[0]) == 1
    assert len(batch(sd1, "[a:b:0.5]").positive[0][0].schedule.entries) == 1


def test_shorter_texts_are_filled_up_with_the_empty_prompt(sd1: Conditioner):
    conds = batch(sd1, '("a cat", "a dog").and()', "a bird")
    negative = conds.negative[0].at(0).cross
    assert conds.positive[0][0].schedule.at(0).cross.shape[0] == len(negative) == 154
    assert torch.allclose(negative[77:], cross(sd1, ""), atol=1e-5)


def test_long_prompt_is_split_not_cut(sd1: Conditioner):
    assert cross(sd1, "a very red bird, " * 30).shape[0] == 154


def test_second_batch_of_the_same_texts_is_remembered(sd1: Conditioner):
    first, second = (batch(sd1, "a blue cup").positive[0][0].schedule.at(0) for _ in "ab")
    assert first is second


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("a cat.swap(dog)", "swap"),
        ("(" * 11 + "a", "nested"),
        ("a" * 4001, "characters"),
        ("(a)100000", "out of range"),
        ('("a", "b").and(1, 2, 3)', "compel"),
        ("a cat withLora(x,1)", "withLora"),
    ],
)
def test_what_compel_cannot_do_here_is_refused(prompt: str, reason: str):
    with pytest.raises(BadRequest, match=reason):
        compel_prompts.parse(prompt)


@settings(max_examples=60, deadline=2000)
@given(st.text(st.sampled_from('ab ,.:()+-"\\[]0159é'), max_size=30))
def test_any_text_is_encoded_or_refused(sd1: Conditioner, text: str):
    try:
        encoded = cross(sd1, text)
    except BadRequest:
        return
    assert encoded.isfinite().all()
