"""What is told of the rows of a UNet call, as tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor


class RowTensors:
    """Makes a tensor of numbers or truths once: a copy to a GPU waits for all that it has to do,
    and the rows of a run's calls are nearly always the same."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Tensor] = {}

    def of(self, values: Sequence[bool] | Sequence[int], device: torch.device) -> Tensor:
        """The values [N] on a device."""
        key = (device, *((type(value), value) for value in values))
        if key not in self._made:
            self._made[key] = torch.tensor(values, device=device)
        return self._made[key]
