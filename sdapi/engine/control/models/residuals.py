"""Residuals: what ControlNets and adapters add inside of a UNet, summed over a job's units."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdapi.engine.control.control import Control
from sdapi.engine.control.hints import region_tensor
from sdapi.engine.control.models.weighting import over_region, rows_of
from sdapi.engine.control.rows import RowTensors
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.sampling.denoising.unet_predictor import sdxl_inputs

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

_DOWN, _MIDDLE = "down_block_additional_residuals", "mid_block_additional_residual"


@dataclass(frozen=True, slots=True)
class EncoderInputs:
    """Some rows of a UNet call, as a copy of its encoder reads them."""

    #: the latents alone, without further input channels [N, C, h, w]
    x: Tensor
    t: Tensor
    cross: Tensor
    added: dict[str, Tensor] | None

    @classmethod
    def of(cls, call: UNetCall, rows: Sequence[int], dtype: torch.dtype) -> "EncoderInputs":
        """The given rows in a number type."""
        conds, device = [call.rows[i].cond for i in rows], call.x.device
        cross = torch.stack([cond.cross for cond in conds]).to(device, dtype)
        x = call.x
        if len(rows) < len(call.rows):
            x = torch.stack([x[i] for i in rows])  # numbers in a list would be copied to a GPU
        return cls(x.to(dtype), call.t[: len(rows)], cross, sdxl_inputs(conds, device, dtype))


class ResidualControl(Control):
    """A unit whose model makes residuals; here one for every skip connection and the middle."""

    def __init__(
        self,
        unit: ControlUnit,
        sampling: "SamplingPass",
        scales: Sequence[float],
        *,
        pools: bool = False,
    ) -> None:
        self._unit = unit
        self._scales = tuple(scales)
        #: residuals are averaged over the picture
        self._pools = pools
        self._row_tensors = RowTensors()
        self._region = region_tensor(unit, sampling.models.device)

    @abstractmethod
    def residuals(self, call: UNetCall, rows: Sequence[int]) -> Sequence[Tensor]:
        """The model's residuals for some rows of a call, from the first block to the middle."""

    def before(self, call: UNetCall) -> None:
        rows = rows_of(self._unit, call.rows, pools=self._pools)
        if not rows or not any(self._scales):
            return
        dtype = call.components.unet.dtype
        made = [
            self._spread(self._shaped(residual * scale), rows, len(call.rows)).to(dtype)
            for residual, scale in zip(self.residuals(call, rows), self._scales, strict=True)
        ]
        self._add(call, made)

    def _spread(self, residual: Tensor, rows: Sequence[int], count: int) -> Tensor:
        """A residual of some rows as one of all `count`, zero for the others."""
        if len(rows) == count:
            return residual
        whole = residual.new_zeros(count, *residual.shape[1:])
        whole[self._row_tensors.of(rows, residual.device)] = residual
        return whole

    def _add(self, call: UNetCall, made: Sequence[Tensor]) -> None:
        add_residuals(call, made[:-1], made[-1])

    def _shaped(self, residual: Tensor) -> Tensor:
        if self._pools:
            residual = residual.mean(dim=(2, 3), keepdim=True).expand_as(residual)
        return over_region(residual, self._region)


def add_residuals(call: UNetCall, down: Sequence[Tensor], middle: Tensor) -> None:
    """Add residuals to those that other units gave to a call."""
    others = call.arguments.get(_DOWN)
    if others is not None:
        down = [each + other for each, other in zip(down, others, strict=True)]
        middle = middle + call.arguments[_MIDDLE]
    call.arguments[_DOWN], call.arguments[_MIDDLE] = tuple(down), middle
