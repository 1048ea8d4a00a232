"""The axes that a request asks for, and its cells (contract: webui-scripts 8.1 to 8.3)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import TYPE_CHECKING, Any, Final

from sdapi.errors import BadRequest, SDAPIError, near_names
from sdapi.extensions.scripts.selectable.xyz_plot.axes import SEED, SUBSEED, Axis, Setting
from sdapi.extensions.scripts.selectable.xyz_plot.values import (
    join_csv,
    numbers,
    split_csv,
    whole_numbers,
)
from sdapi.services.generation.drafting.seeds import random_seed
from sdapi.services.scripts.script import GenerationRequest

if TYPE_CHECKING:
    from sdapi.services.container import Services

_MAX_CELLS: Final = 1000
_SEEDS: Final = (SEED, SUBSEED)


@dataclass(frozen=True, slots=True)
class AskedAxis:
    """What a request says of one of its axes."""

    letter: str
    type: int | str | None
    text: str
    items: list[str] | None
    #: its place is added to the cells' seeds
    varies_seed: bool


@dataclass(frozen=True, slots=True)
class PlotAxis:
    """One axis of a plot."""

    axis: Axis
    values: Sequence[Any]
    #: as infotexts tell them
    told: str
    varies_seed: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def labels(self) -> list[str]:
        return [self.axis.label_of(value) for value in self.values]

    def keys(self, letter: str, *, keeps_random: bool) -> dict[str, str]:
        """The infotext keys of a grid over this axis."""
        if self.axis.type == "none":
            return {}
        keys = {f"{letter} Type": self.axis.name, f"{letter} Values": self.told}
        if self.axis in _SEEDS and not keeps_random:
            keys[f"Fixed {letter} Values"] = ", ".join(str(value) for value in self.values)
        return keys


@dataclass(frozen=True, slots=True)
class Cell:
    """A place in a plot."""

    x: int
    y: int
    z: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The axes of a plot."""

    x: PlotAxis
    y: PlotAxis
    z: PlotAxis
    services: "Services"

    @property
    def _axes(self) -> tuple[PlotAxis, PlotAxis, PlotAxis]:
        return self.x, self.y, self.z

    @property
    def count(self) -> int:
        return len(self.x) * len(self.y) * len(self.z)

    def cells(self) -> Iterator[Cell]:
        """All cells in the order they are drawn: what is dear to change, changes least often."""
        order = _nesting([axis.axis.cost for axis in self._axes])
        for places in product(*(range(len(self._axes[i])) for i in order)):
            by_axis = dict(zip(order, places, strict=True))
            yield Cell(by_axis[0], by_axis[1], by_axis[2])

    def edge_cells(self) -> Iterator[Cell]:
        """The first cell, then those that differ from it in one axis: every value stands there."""
        yield Cell(0, 0, 0)
        yield from (Cell(i, 0, 0) for i in range(1, len(self.x)))
        yield from (Cell(0, i, 0) for i in range(1, len(self.y)))
        yield from (Cell(0, 0, i) for i in range(1, len(self.z)))

    def index(self, cell: Cell) -> int:
        """The place of a cell in an answer."""
        return cell.x + cell.y * len(self.x) + cell.z * len(self.x) * len(self.y)

    def request(self, asked: GenerationRequest, cell: Cell) -> GenerationRequest:
        """The request of a cell; raises `BadRequest` and its kin for a value that cannot be."""
        request = asked
        for axis, place in zip(self._axes, (cell.x, cell.y, cell.z), strict=True):
            setting = Setting(axis.values[place], axis.values, self.services)
            try:
                update = axis.axis.apply(request, setting)
            except SDAPIError as error:
                raise type(error)(f"script_args, axis {axis.axis.name}: {error.detail}") from error
            known = type(request).model_fields
            request = request.model_copy(update={k: v for k, v in update.items() if k in known})
        if request.seed not in (None, -1):
            request = request.model_copy(update={"seed": request.seed + self._seed_shift(cell)})
        return request

    def _seed_shift(self, cell: Cell) -> int:
        """What the axes that vary seeds add."""
        shift, stride = 0, 1
        for axis, place in zip(self._axes, (cell.x, cell.y, cell.z), strict=True):
            if axis.varies_seed:
                shift += place * stride
                stride *= len(axis)
        return shift

    def label(self, cell: Cell) -> str:
        """A cell in words."""
        named = zip(self._axes, (cell.x, cell.y, cell.z), strict=True)
        told = [f"{a.axis.name} {a.values[i]!r:.100}" for a, i in named if a.axis.type != "none"]
        return ", ".join(told) or "the only cell"


def plan_axes(
    asked: Sequence[AskedAxis],
    axes: Sequence[Axis],
    services: "Services",
    *,
    as_text: bool,
    keeps_random: bool,
) -> Plan:
    """The plan of three axes; raises `BadRequest` and its kin that name the axis."""
    read = [_read(each, axes, as_text=as_text, keeps_random=keeps_random) for each in asked]
    plan = Plan(read[0], read[1], read[2], services)
    if plan.count > _MAX_CELLS:
        raise BadRequest(f"script_args: {plan.count} cells; at most {_MAX_CELLS}")
    return plan


def _read(asked: AskedAxis, axes: Sequence[Axis], *, as_text: bool, keeps_random: bool) -> PlotAxis:
    axis = _find(asked, axes)
    if axis.type == "none":
        return PlotAxis(axis, [0], "", asked.varies_seed)
    takes_list = axis.has_list and not as_text and asked.items is not None
    items = [item.strip() for item in asked.items or []] if takes_list else split_csv(asked.text)
    told = join_csv(asked.items or []) if takes_list else asked.text
    try:
        values = _values(axis, items)
    except (ValueError, OverflowError) as error:
        raise BadRequest(
            f"script_args, {asked.letter} values: {told[:200]!r} are no values of {axis.name} "
            f"({error})"
        ) from error
    if axis in _SEEDS and not keeps_random:
        values = [random_seed() if value == -1 else value for value in values]
    return PlotAxis(axis, values, told, asked.varies_seed)


def _find(asked: AskedAxis, axes: Sequence[Axis]) -> Axis:
    """The axis of an index, or of a name as `script-info` shows it."""
    names = [axis.name for axis in axes]
    wanted = 0 if asked.type is None else asked.type
    if isinstance(wanted, str) and wanted in names:
        return axes[names.index(wanted)]
    if isinstance(wanted, int) and 0 <= wanted < len(axes):
        return axes[wanted]
    near = near_names(wanted, names) if isinstance(wanted, str) else f"0 to {len(axes) - 1}"
    raise BadRequest(f"script_args, {asked.letter} type: {wanted!r} is unknown; there are {near}")


def _values(axis: Axis, items: list[str]) -> Sequence[Any]:
    if axis.type == "int":
        return whole_numbers(items)
    if axis.type == "float":
        return numbers(items)
    if axis.type == "order":
        if math.factorial(min(len(items), 20)) > _MAX_CELLS:
            raise ValueError(f"{len(items)} parts have more than {_MAX_CELLS} orders")
        return list(permutations(items)) if items else []
    return items


def _nesting(costs: Sequence[float]) -> list[int]:
    """Axes from the outermost loop to the innermost; Z, Y, X where none is the dearest."""
    order = [2, 1, 0]
    dearest = max(costs)
    if costs.count(dearest) > 1:
        return order
    first = costs.index(dearest)
    rest = [axis for axis in order if axis != first]
    if costs[rest[1]] > costs[rest[0]]:
        rest.reverse()
    return [first, *rest]
