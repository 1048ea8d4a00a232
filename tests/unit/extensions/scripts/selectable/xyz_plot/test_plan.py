"""The order in which an X/Y/Z plot draws its cells (webui-scripts 8.3)."""

from itertools import pairwise, product
from typing import Any, cast

import pytest

from sdapi.extensions.scripts.selectable.xyz_plot.axes import Axis
from sdapi.extensions.scripts.selectable.xyz_plot.plan import Plan, PlotAxis

NO_SERVICES = cast("Any", None)


def plan_of(x: float, y: float, z: float) -> Plan:
    """A plot of two values an axis, whose changes cost this much."""
    axes = [
        PlotAxis(Axis("Steps", "int", lambda request, setting: {}, cost=cost), [1, 2], "1,2")
        for cost in (x, y, z)
    ]
    return Plan(axes[0], axes[1], axes[2], NO_SERVICES)


def nesting(plan: Plan) -> str:
    """The axes from the one that changes least often."""
    changes = {"x": 0, "y": 0, "z": 0}
    cells = list(plan.cells())
    for before, after in pairwise(cells):
        for letter in changes:
            changes[letter] += getattr(before, letter) != getattr(after, letter)
    return "".join(sorted(changes, key=lambda letter: changes[letter]))


@pytest.mark.parametrize(
    ("costs", "order"),
    [
        ((0, 0, 0), "zyx"),
        ((1, 0, 0), "xzy"),
        ((0, 1, 0), "yzx"),
        ((0, 0, 1), "zyx"),
        ((1, 0.5, 0), "xyz"),
        ((0.5, 1, 0), "yxz"),
        ((0.5, 0, 1), "zxy"),
        ((1, 1, 0), "zyx"),
    ],
)
def test_what_is_dear_changes_least_often(costs: tuple[float, float, float], order: str):
    assert nesting(plan_of(*costs)) == order


@pytest.mark.parametrize("costs", list(product((0, 1), repeat=3)))
def test_every_cell_comes_once_with_a_place_of_its_own(costs: tuple[float, float, float]):
    plan = plan_of(*costs)
    assert sorted(plan.index(cell) for cell in plan.cells()) == list(range(8))
