"""Texts, ranges and lists -> the values of an axis (contract: webui-scripts 8.2)."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, Literal, TypeVar

import numpy as np

from sdapi.errors import BadRequest

ValueType = Literal["none", "int", "float", "text", "order"]
#: values of one axis
MAX_VALUES: Final = 1000

_INT: Final = r"[+-]?\s*\d+"
_FLOAT: Final = r"[+-]?\s*\d+(?:\.\d*)?"
_BY_STEP: Final = r"\s*({number})\s*-\s*({number})(?:\s*\(\s*([+-]{unsigned})\s*\))?\s*"
_BY_COUNT: Final = r"\s*({number})\s*-\s*({number})\s*\[\s*(\d+)\s*\]\s*"
_INT_BY_STEP: Final = re.compile(_BY_STEP.format(number=_INT, unsigned=r"\d+"))
_INT_BY_COUNT: Final = re.compile(_BY_COUNT.format(number=_INT))
_FLOAT_BY_STEP: Final = re.compile(_BY_STEP.format(number=_FLOAT, unsigned=r"\d+(?:\.\d*)?"))
_FLOAT_BY_COUNT: Final = re.compile(_BY_COUNT.format(number=_FLOAT))

_Number = TypeVar("_Number", int, float)


def split_csv(text: str) -> list[str]:
    """The items of a text: commas between them, double quotes around what holds one.

    >>> split_csv('Euler, "a, b"')
    ['Euler', 'a, b']
    """
    try:
        rows = list(csv.reader(io.StringIO(text), skipinitialspace=True))
    except csv.Error as error:
        raise BadRequest(
            f"script_args: {text[:100]!r} cannot be split at commas ({error})"
        ) from error
    return [item.strip() for item in chain.from_iterable(rows)]


def join_csv(items: Sequence[str]) -> str:
    """The items as one such text."""
    out = io.StringIO()
    csv.writer(out).writerow(items)
    return out.getvalue().strip("\r\n")


def whole_numbers(items: Iterable[str]) -> list[int]:
    """The numbers of items, ranges expanded; raises `ValueError` for what is no number.

    >>> whole_numbers(["1-3", "5-1 (-1)", "0-10 [3]"])
    [1, 2, 3, 5, 4, 3, 0, 5, 10]
    """
    return _limited(chain.from_iterable(map(_whole, items)))


def numbers(items: Iterable[str]) -> list[float]:
    """Likewise; a range by steps may go one beyond its end.

    >>> numbers(["1-2.5", "0-1 [3]"])
    [1.0, 2.0, 3.0, 0.0, 0.5, 1.0]
    """
    return _limited(chain.from_iterable(map(_fractions, items)))


def _whole(item: str) -> Iterable[int]:
    if (found := _INT_BY_COUNT.fullmatch(item)) is not None:
        return [int(value) for value in _spread(found, _int)]
    if (found := _INT_BY_STEP.fullmatch(item)) is not None:
        # The end counts for rising ranges; falling ones stop two before it, as in the reference.
        return range(_int(found[1]), _int(found[2]) + 1, _int(found[3] or "1"))
    return [int(item)] if item else []


def _fractions(item: str) -> Iterable[float]:
    if (found := _FLOAT_BY_COUNT.fullmatch(item)) is not None:
        return _spread(found, _float)
    if (found := _FLOAT_BY_STEP.fullmatch(item)) is not None:
        low, high, step = _float(found[1]), _float(found[2]), _float(found[3] or "1")
        if step == 0:
            raise ValueError("a range cannot have steps of 0")
        count = math.ceil((high + step - low) / step)
        _check_count(count)
        return np.arange(low, high + step, step).tolist()
    return [float(item)] if item else []


def _spread(found: re.Match[str], read: Callable[[str], float]) -> list[float]:
    """Values evenly from one end to the other."""
    _check_count(int(found[3]))
    return np.linspace(read(found[1]), read(found[2]), int(found[3])).tolist()


def _int(text: str) -> int:
    return int(text.replace(" ", ""))


def _float(text: str) -> float:
    return float(text.replace(" ", ""))


def _check_count(count: int) -> None:
    if count > MAX_VALUES:
        raise BadRequest(f"script_args: an axis of {count} values; at most {MAX_VALUES}")


def _limited(values: Iterator[_Number]) -> list[_Number]:
    """The values, if they are not too many."""
    found: list[_Number] = []
    for value in values:
        found.append(value)
        if len(found) > MAX_VALUES:
            raise BadRequest(f"script_args: an axis of more than {MAX_VALUES} values")
    return found
