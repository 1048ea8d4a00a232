"""Guidance by picture and prompt, on a model whose output tells what it was given."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.sampling.denoising.edit_guidance import EditGuide
from sdapi.engine.sampling.denoising.guidance import Guidance, Row, Stopped
from sdapi.engine.text.cond import BatchCond, Cond, CondSchedule, WeightedCond
from sdapi.errors import BadRequest

PICTURE = 10.0


def always(value: float, tokens: int = 77) -> CondSchedule:
    return CondSchedule(((100, Cond(torch.full((tokens, 2), value))),))


def guide(positive: tuple[WeightedCond, ...], **guidance: float) -> EditGuide:
    conds = BatchCond((positive,) * 2, (always(1.0),) * 2)
    return EditGuide(conds, Guidance(7.0), Monitor(), {}, **guidance)


def model(x: Tensor, rows: Sequence[Row]) -> Tensor:
    """The text's value, and ten more where the picture is seen."""
    values = [float(row.cond.cross[0, 0]) + PICTURE * row.sees_picture for row in rows]
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(x.shape).clone()


def prompt(value: float, weight: float = 1.0, tokens: int = 77) -> tuple[WeightedCond, ...]:
    return (WeightedCond(always(value, tokens), weight),)


@pytest.mark.parametrize("tokens", [77, 154])
def test_prompt_and_picture_steer_by_their_own_scales(tokens: int):
    steered = guide(prompt(3.0, tokens=tokens), image_cfg_scale=1.5)
    output = steered(torch.zeros(2, 1, 2, 2), 5.0, model)
    assert output.unique().tolist() == [1 + 7 * (3 - 1) + 1.5 * PICTURE]
    assert steered.uncond is not None
    assert steered.uncond.unique().tolist() == [1.0]
    assert steered.calls == 1


def test_weight_of_a_prompt_does_not_count():
    outputs = [
        guide(prompt(3.0, weight), image_cfg_scale=2.0)(torch.zeros(2, 1, 2, 2), 5.0, model)
        for weight in (1.0, 0.2)
    ]
    assert torch.equal(*outputs)


def test_prompt_of_several_parts_is_refused():
    with pytest.raises(BadRequest, match="AND is not supported"):
        guide(prompt(3.0) * 2, image_cfg_scale=2.0)


def test_interrupt_stops_before_the_call():
    conds = BatchCond((prompt(3.0),), (always(1.0),))
    monitor = Monitor()
    monitor.interrupted.set()
    with pytest.raises(Stopped):
        EditGuide(conds, Guidance(7.0), monitor, {}, image_cfg_scale=2.0)(
            torch.zeros(1, 1, 2, 2), 5.0, model
        )
