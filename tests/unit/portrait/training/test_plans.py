from types import SimpleNamespace
from typing import Any

import pytest

from sdapi.portrait.training.plans import MOST_EVALUATIONS, plan_for
from sdapi.portrait.wire.requests import TrainRequest

BASE: Any = SimpleNamespace(kind="sd15", native_side=512)


@pytest.mark.parametrize(
    ("steps", "asked", "every"),
    [
        (400, 50, 50),
        (600, 50, 50),
        (400, 10, 10),
        (8, 4, 4),
        (10, 1, 1),
        (5, 9, 5),
        (10_000, 1, 250),
    ],
)
def test_evaluations_are_made_when_they_are_asked_for_within_their_number(
    steps: int, asked: int, every: int
):
    request = TrainRequest(("u",), max_train_steps=steps, steps_between_evaluations=asked)
    assert plan_for(request, BASE).evaluated_every == every
    assert steps / every <= MOST_EVALUATIONS
