"""How long a stage trains: a number of steps, or as many as fit into a time."""

import time

_WARM_STEPS, _MEASURED_STEPS = 60, 100  # the first steps compile and fill caches


class Pace:
    """Counts a stage's steps; with `seconds` its speed, once known, sets how many they are.

    Learning rates depend on the number of all steps only near the end, so it may still change
    while a stage is young. A run that is to be repeated names its steps instead.
    """

    def __init__(self, steps: int, seconds: float | None, first: int = 0) -> None:
        self.steps = steps
        self._seconds = seconds
        self._first = first
        self._started = self._warm = time.monotonic()

    def look(self, step: int) -> int:
        """The number of all steps, as far as it is known before `step`."""
        done, now = step - self._first, time.monotonic()
        if self._seconds is None:
            return self.steps
        if done == _WARM_STEPS:
            self._warm = now
        if done == _WARM_STEPS + _MEASURED_STEPS:
            speed = _MEASURED_STEPS / (now - self._warm)
            left = self._seconds - (now - self._started)
            self.steps = step + max(1, int(left * speed))
        return self.steps
