"""When a refiner takes over a picture that is being drawn (contract: webui-generation 12)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sdapi.engine.sampling.denoising.unet_predictor import UNetPredictor
from sdapi.engine.text.cond import BatchCond

_LAST_TIME_STEP, _TRAIN_STEPS = 999, 1000


@dataclass(frozen=True, slots=True)
class Successor:
    """What goes on drawing in the place of the first model."""

    predict: UNetPredictor
    cond: BatchCond
    alphas_cumprod: Tensor
    v_prediction: bool


@dataclass(slots=True)
class Handover:
    """Watches a sampler run; at the call on which it is due, the model is exchanged, once."""

    #: loads the refiner, None where there is none to come
    take_over: Callable[[], Successor] | None
    #: how much must be drawn before; None: nothing
    switch_at: float | None
    #: the calls that shares are counted in, None to measure noise levels
    planned_calls: int | None
    #: infotext keys of the exchange, and where they are told
    keys: dict[str, Any]
    extra: dict[str, Any]

    def successor(self, calls: int, time_step: int) -> Successor | None:
        """The refiner, at the call on which it takes over; `calls` have been made before."""
        if self.planned_calls is not None:
            self.extra["Refiner switch by sampling steps"] = True
        if self.take_over is None or not self._is_due(calls, time_step):
            return None
        take_over, self.take_over = self.take_over, None
        self.extra |= self.keys
        return take_over()

    def _is_due(self, calls: int, time_step: int) -> bool:
        if self.switch_at is None:
            return True
        if self.planned_calls is None:
            return (_LAST_TIME_STEP - time_step) / _TRAIN_STEPS >= self.switch_at
        return calls / self.planned_calls >= self.switch_at
