"""The model as a sampler sees it: what it predicts for a latent, once guided and blended.

Contract: webui-generation 5.3 and 5.6.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from sdapi.engine.sampling.denoising.blend import Blend
from sdapi.engine.sampling.denoising.guidance import Guide, Row
from sdapi.engine.sampling.denoising.unet_predictor import UNetPredictor
from sdapi.engine.sampling.handover import Handover
from sdapi.engine.sampling.samplers import Prediction
from sdapi.engine.sampling.schedules import ModelSigmas
from sdapi.errors import NanProduced

#: how a model's noise levels are told: as sigmas, or as cumulative products of 1 - beta
Levels = TypeVar("Levels")
_LCM_TIME_SCALE, _LCM_SIGMA_DATA = 10.0, 0.5


class _Denoiser(ABC, Generic[Levels]):
    """What both kinds share: the model that predicts, and the refiner that may take over."""

    def __init__(
        self,
        predict: UNetPredictor,
        guide: Guide,
        levels: Levels,
        *,
        v_prediction: bool,
        blend: Blend | None = None,
        handover: Handover | None = None,
    ) -> None:
        self._predict = predict
        self._guide = guide
        self._levels = levels
        self._v_prediction = v_prediction
        self._blend = blend
        self._handover = handover

    @abstractmethod
    def _levels_of(self, alphas_cumprod: Tensor) -> Levels:
        """The noise levels of another model."""

    def _exchange(self, time_step: int) -> None:
        """Let a refiner take over when it is due."""
        if self._handover is None:
            return
        successor = self._handover.successor(self._guide.calls, time_step)
        if successor is not None:
            self._predict, self._v_prediction = successor.predict, successor.v_prediction
            self._levels = self._levels_of(successor.alphas_cumprod)
            self._guide.cond = successor.cond


class SigmaDenoiser(_Denoiser[ModelSigmas]):
    """Predicts the clean latent from one at noise level sigma: what sigma-space samplers call."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoised latents of `x` [B, C, h, w] at one `sigma`, a scalar on the CPU."""
        sigma = sigma.float().cpu()
        self._exchange(int((self._levels.sigmas - sigma).abs().argmin()))
        time_step = self._levels.t(sigma.reshape(1))
        c_in = float(1 / (sigma**2 + 1) ** 0.5)
        # Read while it is on the CPU: a value that comes back from a GPU waits for all its work.
        t = float(time_step)
        c_skip, c_out = self._scalings(sigma, t)

        def inner(latents: Tensor, rows: Sequence[Row]) -> Tensor:
            output = self._predict(latents * c_in, t, rows)
            return latents * c_skip + output * c_out

        denoised = self._guide(x, float(sigma), inner)
        if self._blend is not None:
            denoised = self._blend.during(denoised, float(sigma))
        self._guide.remember(denoised)
        return denoised

    def _levels_of(self, alphas_cumprod: Tensor) -> ModelSigmas:
        return self._levels.of(alphas_cumprod)

    def _scalings(self, sigma: Tensor, t: float) -> tuple[float, float]:
        """The shares of the latent and of the UNet's output in the prediction."""
        if not self._v_prediction:
            return 1.0, float(-sigma)
        variance = sigma**2 + 1
        return float(1 / variance), float(-sigma / variance**0.5)


class LCMDenoiser(SigmaDenoiser):
    """With the boundary conditions of consistency models (Song et al. 2023, equation 5)."""

    def _scalings(self, sigma: Tensor, t: float) -> tuple[float, float]:
        skip, out = super()._scalings(sigma, t)
        scaled = t * _LCM_TIME_SCALE
        variance = scaled**2 + _LCM_SIGMA_DATA**2
        boundary_skip, boundary_out = _LCM_SIGMA_DATA**2 / variance, scaled / variance**0.5
        return boundary_skip + boundary_out * skip, boundary_out * out


class NoiseDenoiser(_Denoiser[Tensor]):
    """Predicts the noise in a latent at a training time step: what timestep samplers call."""

    def __call__(self, x: Tensor, timestep: float) -> Prediction:
        """The noise in `x` [B, C, h, w] at a time step; inpainting blends before the call."""
        if self._blend is not None:
            x = self._blend.during(x, timestep)
        self._exchange(int(timestep))
        alpha = float(self._levels[int(timestep)])
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5

        def inner(latents: Tensor, rows: Sequence[Row]) -> Tensor:
            output = self._predict(latents, timestep, rows)
            return signal * output + noise * latents if self._v_prediction else output

        predicted = self._guide(x, timestep, inner)
        self._guide.remember((x - noise * predicted) / signal)
        uncond = predicted if self._guide.uncond is None else self._guide.uncond
        return Prediction(predicted, uncond)

    def _levels_of(self, alphas_cumprod: Tensor) -> Tensor:
        return alphas_cumprod.cpu()


def check_latent(latent: Tensor) -> None:
    """Raise `NanProduced` when a sampler's result holds NaNs."""
    if torch.isnan(latent).any():
        raise NanProduced(
            "A tensor with NaNs was produced in Unet. The model or its number type cannot draw "
            "this; try --no-half. Use --disable-nan-check commandline argument to disable this "
            "check."
        )
