"""What an annotator is told beside the picture."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sliders:
    """The thresholds of a unit, and a seed for colours without a meaning."""

    a: float
    b: float
    seed: int = 0
