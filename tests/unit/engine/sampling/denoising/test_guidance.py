"""Guidance on made-up conds: what is evaluated, how it is combined, what the infotext tells."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.sampling.denoising.guidance import Economy, Guidance, Guide, Padding, Row
from sdapi.engine.text.cond import BatchCond, Cond, CondSchedule, WeightedCond

CFG = 7.0


def cond(value: float, tokens: int = 77) -> Cond:
    return Cond(torch.full((tokens, 2), value))


def always(value: Cond) -> CondSchedule:
    return CondSchedule(((100, value),))


def batch(*parts: tuple[Cond, float], negative: Cond, images: int = 1) -> BatchCond:
    positive = tuple(WeightedCond(always(c), weight) for c, weight in parts)
    return BatchCond((positive,) * images, (always(negative),) * images, empty=cond(9.0))


class Recorder:
    """A model whose output is the first token of the cond; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[Cond]] = []

    def __call__(self, x: Tensor, rows: Sequence[Row]) -> Tensor:
        self.calls.append([row.cond for row in rows])
        values = torch.stack([row.cond.cross[0, 0] for row in rows])
        return values.reshape(-1, 1, 1, 1).expand(x.shape).clone()


def guide(conds: BatchCond, extra: dict[str, Any] | None = None, **guidance: Any) -> Guide:
    return Guide(conds, Guidance(CFG, **guidance), Monitor(), {} if extra is None else extra)


def value(output: Tensor) -> float:
    return float(output.reshape(-1)[0])


def latents(images: int = 1) -> Tensor:
    return torch.zeros(images, 1, 2, 2)


def test_parts_of_an_and_are_summed_by_weight():
    two = batch((cond(3.0), 1.0), (cond(5.0), 0.5), negative=cond(1.0))
    assert value(guide(two)(latents(), 5.0, Recorder())) == 1 + 2 * CFG + 4 * 0.5 * CFG


@pytest.mark.parametrize(
    ("at_all_calls", "evaluations"), [(False, [2, 1, 2, 1]), (True, [1, 1, 1, 1])]
)
def test_low_noise_skips_the_negative_at_odd_or_at_all_calls(
    at_all_calls: bool, evaluations: list[int]
):
    extra: dict[str, Any] = {}
    economy = Economy(min_level=3.0, at_all_calls=at_all_calls)
    skipping = guide(batch((cond(3.0), 1.0), negative=cond(1.0)), extra, economy=economy)
    model = Recorder()
    values = [value(skipping(latents(), 2.9, model)) for _ in range(4)]
    assert [len(rows) for rows in model.calls] == evaluations
    assert values == [3.0 if count == 1 else 1 + 2 * CFG for count in evaluations]
    assert extra == {"NGMS": 3.0} | ({"NGMS all steps": True} if at_all_calls else {})


def test_high_noise_skips_nothing_and_says_nothing():
    extra: dict[str, Any] = {}
    economy = Economy(min_level=3.0, at_all_calls=True)
    careful = guide(batch((cond(3.0), 1.0), negative=cond(1.0)), extra, economy=economy)
    assert value(careful(latents(), 3.0, Recorder())) == 1 + 2 * CFG
    assert extra == {}


def test_skipping_keeps_the_weights_of_further_parts():
    economy = Economy(min_level=9.0, at_all_calls=True)
    two = batch((cond(3.0), 2.0), (cond(5.0), 0.5), negative=cond(1.0), images=2)
    model = Recorder()
    result = guide(two, economy=economy)(latents(2), 1.0, model)
    assert result[:, 0, 0, 0].tolist() == [3 + 0.5 * 2, 3 + 0.5 * 2]
    assert [len(rows) for rows in model.calls] == [4]


def test_early_calls_are_skipped_through_their_share_inclusive():
    extra: dict[str, Any] = {}
    early = guide(
        batch((cond(3.0), 1.0), negative=cond(1.0)),
        extra,
        economy=Economy(early_share=0.2, planned_calls=10),
    )
    model = Recorder()
    for _ in range(5):
        early(latents(), 5.0, model)
    assert [len(rows) for rows in model.calls] == [1, 1, 1, 2, 2]
    assert extra == {"Skip Early CFG": 0.2}


@pytest.mark.parametrize(
    ("padding", "positive", "negative", "expected", "key"),
    [
        ("empty", 77, 154, (154, 154), "Pad conds"),
        ("empty", 231, 77, (231, 231), "Pad conds"),
        ("repeat", 77, 154, (77, 77), "Pad conds v0"),
        ("repeat", 231, 77, (231, 231), "Pad conds v0"),
        ("none", 77, 154, (77, 154), None),
        ("empty", 77, 77, (77, 77), None),
    ],
)
def test_conds_of_other_length_are_padded_as_asked(
    padding: Padding, positive: int, negative: int, expected: tuple[int, int], key: str | None
):
    extra: dict[str, Any] = {}
    conds = batch((cond(3.0, positive), 1.0), negative=cond(1.0, negative))
    padded = guide(conds, extra, padding=padding)
    model = Recorder()
    padded(latents(), 5.0, model)
    padded.finish()
    rows = [each for call in model.calls for each in call]
    assert tuple(len(each.cross) for each in rows) == expected
    assert extra == ({key: True} if key else {})
    if padding == "empty" and positive != negative:
        shorter = rows[0] if positive < negative else rows[1]
        assert shorter.cross[77:].eq(9.0).all()


@pytest.mark.parametrize(
    ("together", "lengths", "calls"),
    [(True, (77, 77), [6]), (False, (77, 77), [2, 2, 2]), (True, (77, 154), [4, 2])],
)
def test_calls_take_as_many_rows_as_the_option_says(
    together: bool, lengths: tuple[int, int], calls: list[int]
):
    first, second = cond(3.0, lengths[0]), cond(5.0, lengths[0])
    conds = batch((first, 1.0), (second, 1.0), negative=cond(1.0, lengths[1]), images=2)
    model = Recorder()
    result = guide(conds, batch_cond_uncond=together)(latents(2), 5.0, model)
    assert [len(rows) for rows in model.calls] == calls
    assert result[:, 0, 0, 0].tolist() == [1 + 6 * CFG] * 2
