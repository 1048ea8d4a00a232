"""The model as a sampler sees it: classifier-free guidance over scheduled, weighted prompts.

Contract: webui-generation 5.3 and 7.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.monitor import Monitor
from sdapi.engine.sampling.samplers import Prediction
from sdapi.engine.sampling.schedules import ModelSigmas
from sdapi.engine.text.conditioning import BatchCond, Cond
from sdapi.errors import NanProduced

_LCM_TIME_SCALE, _LCM_SIGMA_DATA = 10.0, 0.5


class Stopped(Exception):
    """Sampling was interrupted; carries the last predicted picture, None before the first step."""

    def __init__(self, latent: Tensor | None) -> None:
        super().__init__()
        self.latent = latent


@dataclass(frozen=True, slots=True)
class Guidance:
    """How strongly, and how, the conds steer."""

    cfg_scale: float
    #: evaluate conds and unconds in one UNet call when their lengths agree
    batch_cond_uncond: bool = True


class UNetPredictor:
    """Calls the UNet in its own number type; latents stay float32."""

    def __init__(self, components: Components, image_cond: Tensor | None) -> None:
        self._unet = components.unet
        #: further input channels of inpainting and pix2pix models [B, K, h, w]
        self._image_cond = image_cond

    def __call__(self, x: Tensor, t: Tensor, rows: Sequence["Row"]) -> Tensor:
        """The UNet's output for latents `x` [N, C, h, w] at time steps `t` [N], float32."""
        dtype = self._unet.dtype
        if self._image_cond is not None:
            images = [row.image for row in rows]
            x = torch.cat([x, self._image_cond[images].to(x.dtype)], dim=1)
        cross = torch.stack([row.cond.cross for row in rows])
        output = self._unet(
            x.to(dtype),
            t,
            encoder_hidden_states=cross.to(x.device, dtype),
            added_cond_kwargs=_sdxl_inputs([row.cond for row in rows], x.device, dtype),
            return_dict=False,
        )
        return output[0].float()


def _sdxl_inputs(
    conds: list[Cond], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor] | None:
    pooled = [cond.pooled for cond in conds if cond.pooled is not None]
    sizes = [cond.sizes for cond in conds if cond.sizes is not None]
    if not pooled:
        return None
    return {
        "text_embeds": torch.stack(pooled).to(device, dtype),
        "time_ids": torch.stack(sizes).to(device, dtype),
    }


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a UNet batch: the image it works on, its cond, the cond's weight in the sum."""

    image: int
    cond: Cond
    weight: float = 1.0


#: What a model makes of rows of latents: (x [N, C, h, w], rows) -> [N, C, h, w].
Inner = Callable[[Tensor, Sequence[Row]], Tensor]


class Guide:
    """Classifier-free guidance (Ho and Salimans 2022) over the prompts in force at each call."""

    def __init__(self, cond: BatchCond, guidance: Guidance, monitor: Monitor) -> None:
        self._cond = cond
        self._guidance = guidance
        self._monitor = monitor
        self._latest: Tensor | None = None
        #: the latest output without guidance
        self.uncond: Tensor | None = None
        #: denoiser calls so far
        self.calls = 0

    def __call__(self, x: Tensor, inner: Inner) -> Tensor:
        """Evaluate `inner` for conds and unconds of latents `x` [B, C, h, w] and combine.

        Raises `Stopped` when the monitor says so.
        """
        if self._monitor.should_stop:
            raise Stopped(self._latest)
        conds = self._cond_rows()
        unconds = [Row(i, s.at(self.calls)) for i, s in enumerate(self._cond.negative)]
        if self._guidance.batch_cond_uncond:
            outputs = _evaluate(x, [*conds, *unconds], inner)
        else:
            outputs = _evaluate(x, conds, inner) + _evaluate(x, unconds, inner)
        combined = self._combine(conds, outputs)
        self.calls += 1
        return combined

    def remember(self, predicted: Tensor) -> None:
        """Keep the latest predicted picture: what a stopped job answers with."""
        self._latest = predicted
        self._monitor.latent = predicted

    def _cond_rows(self) -> list[Row]:
        rows = [
            Row(image, part.schedule.at(self.calls), part.weight)
            for image, parts in enumerate(self._cond.positive)
            for part in parts
        ]
        longest = max(row.cond.cross.shape[0] for row in rows)
        return [replace(row, cond=_extend(row.cond, longest)) for row in rows]

    def _combine(self, conds: list[Row], outputs: list[Tensor]) -> Tensor:
        uncond = self.uncond = torch.stack(outputs[len(conds) :])
        combined = uncond.clone()
        for row, output in zip(conds, outputs, strict=False):
            scale = row.weight * self._guidance.cfg_scale
            combined[row.image] += (output - uncond[row.image]) * scale
        return combined


def _extend(cond: Cond, length: int) -> Cond:
    """Repeat a cond's last vector up to a length, as the reference does within one batch."""
    missing = length - cond.cross.shape[0]
    if missing == 0:
        return cond
    return replace(cond, cross=torch.cat([cond.cross, cond.cross[-1:].expand(missing, -1)]))


def _evaluate(x: Tensor, rows: list[Row], inner: Inner) -> list[Tensor]:
    """One call of `inner` for each run of conds of equal length, results in the order of `rows`."""
    outputs: list[Tensor] = []
    for _, group in groupby(rows, key=lambda row: row.cond.cross.shape[0]):
        members = list(group)
        outputs += inner(x[[row.image for row in members]], members).unbind()
    return outputs


@dataclass(frozen=True, slots=True)
class Blend:
    """Inpainting in latent space: what is kept of the init latent at every call."""

    init: Tensor
    #: 1 where the picture is repainted, [h, w] or [B, 1, h, w]
    repaint: Tensor

    def __call__(self, latent: Tensor) -> Tensor:
        return latent * self.repaint + self.init * (1 - self.repaint)


class SigmaDenoiser:
    """Predicts the clean latent from one at noise level sigma: what sigma-space samplers call."""

    def __init__(
        self,
        predict: UNetPredictor,
        guide: Guide,
        sigmas: ModelSigmas,
        *,
        v_prediction: bool,
        blend: Blend | None = None,
    ) -> None:
        self._predict = predict
        self._guide = guide
        self._sigmas = sigmas
        self._v_prediction = v_prediction
        self._blend = blend

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoised latents of `x` [B, C, h, w] at one `sigma`, a scalar on the CPU."""
        sigma = sigma.float().cpu()
        t = self._sigmas.t(sigma.reshape(1)).to(x.device)
        c_in = float(1 / (sigma**2 + 1) ** 0.5)
        c_skip, c_out = self._scalings(sigma, float(t))

        def inner(latents: Tensor, rows: Sequence[Row]) -> Tensor:
            output = self._predict(latents * c_in, t.expand(len(rows)), rows)
            return latents * c_skip + output * c_out

        denoised = self._guide(x, inner)
        if self._blend is not None:
            denoised = self._blend(denoised)
        self._guide.remember(denoised)
        return denoised

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


class NoiseDenoiser:
    """Predicts the noise in a latent at a training time step: what timestep samplers call."""

    def __init__(
        self,
        predict: UNetPredictor,
        guide: Guide,
        alphas_cumprod: Tensor,
        *,
        v_prediction: bool,
        blend: Blend | None = None,
    ) -> None:
        self._predict = predict
        self._guide = guide
        self._alphas = alphas_cumprod
        self._v_prediction = v_prediction
        self._blend = blend

    def __call__(self, x: Tensor, timestep: float) -> Prediction:
        """The noise in `x` [B, C, h, w] at a time step; inpainting blends before the call."""
        if self._blend is not None:
            x = self._blend(x)
        alpha = float(self._alphas[int(timestep)])
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5

        def inner(latents: Tensor, rows: Sequence[Row]) -> Tensor:
            t = torch.full((len(rows),), timestep, device=latents.device)
            output = self._predict(latents, t, rows)
            return signal * output + noise * latents if self._v_prediction else output

        predicted = self._guide(x, inner)
        self._guide.remember((x - noise * predicted) / signal)
        uncond = predicted if self._guide.uncond is None else self._guide.uncond
        return Prediction(predicted, uncond)


def check_latent(latent: Tensor) -> None:
    """Raise `NanProduced` when a sampler's result holds NaNs."""
    if torch.isnan(latent).any():
        raise NanProduced(
            "A tensor with NaNs was produced in Unet. The model or its number type cannot draw "
            "this; try --no-half. Use --disable-nan-check commandline argument to disable this "
            "check."
        )
