from types import SimpleNamespace
from typing import Any

import pytest

from sdapi.portrait.training.plans import MOST_EVALUATIONS, plan_for
from sdapi.portrait.wire.requests import TrainRequest

BASE: Any = SimpleNamespace(
    kind="sd15", native_side=512, learning_rate=None, trains_convolutions=False
)


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


@pytest.mark.parametrize(("suiting", "rate"), [(None, 1e-4), (1e-3, 1e-3)])
@pytest.mark.parametrize(("kind", "is_scene"), [("sd15", False), ("xl", False), ("xl", True)])
def test_a_checkpoint_may_say_how_fast_it_learns(
    kind: str, is_scene: bool, suiting: float | None, rate: float
):
    base: Any = SimpleNamespace(**(vars(BASE) | {"kind": kind, "learning_rate": suiting}))
    request = TrainRequest(("u",), is_xl=kind == "xl", is_scene=is_scene)
    assert plan_for(request, base).learning_rate == rate


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("kind", ["sd15", "xl"])
def test_a_checkpoint_may_have_its_convolutions_trained(kind: str, told: bool):
    base: Any = SimpleNamespace(**(vars(BASE) | {"kind": kind, "trains_convolutions": told}))
    request = TrainRequest(("u",), is_xl=kind == "xl")
    assert plan_for(request, base).shape.has_convolutions is told
