"""The share of a sampler run in which a unit acts (contract: controlnet-api 6)."""

from dataclasses import dataclass

from sdapi.engine.control.unit import ControlUnit


@dataclass(slots=True)
class Progress:
    """How far a run is, as the webui's progress tells: it lags one step behind the calls.

    A step tells itself done after its first call, so a second call sees its own number.
    """

    steps: int
    _done: int = -1
    _first_t: float | None = None
    _is_second_call: bool = False

    def note_call(self, time_step: float) -> None:
        """A call of the UNet at a time step is about to happen."""
        if self._first_t is None:
            self._first_t = time_step
        self._is_second_call = time_step != self._first_t

    def note_step(self, index: int) -> None:
        """Step `index` is over."""
        self._done, self._first_t, self._is_second_call = index, None, False

    @property
    def share(self) -> float:
        """0 to 1; below 1 for every call."""
        step = self._done + 1 if self._is_second_call else max(self._done, 0)
        return step / self.steps

    def is_within(self, unit: ControlUnit) -> bool:
        """Whether a unit acts now."""
        return unit.start <= self.share <= unit.end
