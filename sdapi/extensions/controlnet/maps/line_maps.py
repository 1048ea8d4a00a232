"""Maps of thin lines: telling them, and making resized ones thin again.

Thinning removes what the L elements of Golay's alphabet (1969) match, turn by turn, until nothing
does; Gonzalez and Woods, Digital Image Processing, 9.5.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.engine.control.unit import Pixels

Grey = NDArray[np.uint8]
Element = NDArray[np.int8]

#: hit-or-miss elements: 1 is a line, -1 is none, 0 may be either
_EDGE: Final = ((-1, -1, -1), (0, 1, 0), (1, 1, 1))
_CORNER: Final = ((0, -1, -1), (1, 1, -1), (0, 1, 0))
_SPURS: Final = (((-1, -1, -1), (-1, 1, -1), (0, 0, -1)), ((-1, -1, -1), (-1, 1, -1), (-1, 0, 0)))
_ROUNDS: Final = 32
#: the lines through a cell, in four directions
_DIRECTIONS: Final = (
    ((0, 0, 0), (1, 1, 1), (0, 0, 0)),
    ((0, 1, 0), (0, 1, 0), (0, 1, 0)),
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
)
_HALF: Final = 127


def is_thin(picture: Pixels) -> bool:
    """Whether more than half of what is white vanishes when lines of a pixel are removed."""
    square = np.ones((3, 3), np.uint8)
    opened = cv2.dilate(cv2.erode(picture, square), square)
    return 2 * int((opened < picture).sum()) > int((picture > _HALF).sum())


def ridges(grey: Grey) -> Grey:
    """What is brightest across some direction; the rest is black."""
    kept = np.zeros_like(grey)
    for direction in _DIRECTIONS:
        brightest = cv2.dilate(grey, np.array(direction, np.uint8))
        np.putmask(kept, brightest == grey, grey)
    return kept


def thinned(lines: Grey, *, prunes: bool) -> Grey:
    """Black-and-white lines, a pixel wide; pruning cuts off ends."""
    current, elements = lines, _turned(_EDGE, _CORNER)
    for _ in range(_ROUNDS):
        before = current
        current = _without(current, elements)
        if np.array_equal(before, current):
            break
    if prunes:
        current = _without(current, _turned(*_SPURS))
    return current


def _turned(*elements: tuple[tuple[int, ...], ...]) -> list[Element]:
    """All elements at each of the four quarter turns."""
    made = [np.array(element, np.int8) for element in elements]
    return [np.rot90(element, turns).copy() for turns in range(4) for element in made]


def _without(lines: Grey, elements: list[Element]) -> Grey:
    """The lines without what each element in turn matches."""
    for element in elements:
        matches = cv2.morphologyEx(lines, cv2.MORPH_HITMISS, element.astype(np.int32))
        lines = np.where(matches > _HALF, np.uint8(0), lines)
    return lines
