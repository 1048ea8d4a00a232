"""Modules that change the predicted picture.

A UNet predicts noise, or velocity; with the latent that stands for a clean latent, which is what
these change (contract: controlnet-api 7).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sdapi.engine.control.control import Control
from sdapi.engine.control.modules.encoding import encode_sampled, picture_tensor
from sdapi.engine.control.rows import RowTensors
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.sampling.denoising.guidance import Row

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass


class PredictionControl(Control):
    """Changes the clean latents that calls of the UNet predict."""

    def __init__(self, unit: ControlUnit, sampling: "SamplingPass") -> None:
        self._unit = unit
        self._pixels = unit.hint_for(is_second_pass=sampling.is_second)
        #: the unit's picture as a latent [1, C, h, w]
        self._origin = encode_sampled(sampling, picture_tensor(self._pixels))

    @abstractmethod
    def changed(self, clean: Tensor, rows: Sequence[Row]) -> Tensor:
        """The clean latents [N, C, h, w] as they should be."""

    def after(self, call: UNetCall, output: Tensor) -> Tensor:
        alpha = alpha_of(call)
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        if call.components.v_prediction:
            clean = self.changed(signal * call.x - noise * output, call.rows)
            return (signal * call.x - clean) / noise
        clean = self.changed((call.x - noise * output) / signal, call.rows)
        return (call.x - signal * clean) / noise


class ColourFix(PredictionControl):
    """Takes the colours of a picture, and details of what is drawn."""

    def __init__(self, unit: ControlUnit, sampling: "SamplingPass") -> None:
        super().__init__(unit, sampling)
        self._radius = int(unit.threshold_a) * (2 if sampling.is_second else 1)
        self._colours = blurred(self._origin, self._radius)
        self._sharpens = unit.module.endswith("+sharp")
        self._row_tensors = RowTensors()

    def changed(self, clean: Tensor, rows: Sequence[Row]) -> Tensor:
        fixed = self._colours + clean - blurred(clean, self._radius)
        if not self._sharpens:
            return fixed
        share = self._unit.threshold_b * 0.01
        soft = share * blurred(fixed, self._radius) + (1 - share) * fixed
        unconds = self._row_tensors.of([row.is_uncond for row in rows], clean.device)
        return torch.where(unconds.reshape(-1, 1, 1, 1), soft, fixed)


def alpha_of(call: UNetCall) -> float:
    """The share of the picture in a call's latents, as the variance of what is no noise."""
    alphas = call.components.alphas_cumprod
    return float(alphas[min(max(round(call.time_step), 0), len(alphas) - 1)])


def blurred(latent: Tensor, radius: int) -> Tensor:
    """The mean of the cells around each, up to `radius` away; edges are drawn out."""
    padded = F.pad(latent, (radius,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * radius + 1, stride=1)
