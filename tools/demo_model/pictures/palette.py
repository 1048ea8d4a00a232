"""Named colours, the vocabulary that captions, renderer and evaluation share."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]

PLAIN: Mapping[str, Colour] = {
    "red": (0.82, 0.12, 0.12),
    "orange": (0.95, 0.50, 0.10),
    "yellow": (0.95, 0.84, 0.20),
    "green": (0.16, 0.58, 0.24),
    "blue": (0.14, 0.32, 0.80),
    "purple": (0.48, 0.20, 0.64),
    "pink": (0.95, 0.55, 0.70),
    "white": (0.94, 0.94, 0.94),
    "grey": (0.50, 0.50, 0.51),
    "black": (0.07, 0.07, 0.08),
}
SKIN: Mapping[str, Colour] = {
    "fair": (0.97, 0.80, 0.71),
    "tan": (0.84, 0.62, 0.45),
    "brown": (0.66, 0.45, 0.32),
    "dark": (0.52, 0.34, 0.25),
}
HAIR: Mapping[str, Colour] = {
    "black": (0.06, 0.05, 0.06),
    "brown": (0.34, 0.19, 0.10),
    "blonde": (0.90, 0.72, 0.36),
    "red": (0.70, 0.22, 0.06),
    "grey": (0.64, 0.64, 0.67),
}
EYES: Mapping[str, Colour] = {
    "blue": (0.20, 0.45, 0.80),
    "green": (0.22, 0.55, 0.28),
    "brown": (0.32, 0.17, 0.08),
}


def shade(colour: Colour, rng: np.random.Generator, amount: float = 0.025) -> Colour:
    """A slightly different colour that still deserves the same name."""
    red, green, blue = np.clip(np.asarray(colour) + rng.uniform(-amount, amount, 3), 0.0, 1.0)
    return float(red), float(green), float(blue)


def as_array(colour: Colour) -> NDArray[np.float32]:
    """The colour as a float32 vector that broadcasts over a picture."""
    return np.asarray(colour, dtype=np.float32)
