"""Modules that change the predicted picture: inpaint_only and tile_colorfix.

A UNet predicts noise, or velocity; with the latent that stands for a clean latent, which is what
these change (contract: controlnet-api 7).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sdapi.engine.control.control import Control
from sdapi.engine.control.hints import mask_tensor
from sdapi.engine.control.unit import ControlUnit, Pixels
from sdapi.engine.latents.init_latent import encode_pixels, seeded_generator
from sdapi.engine.latents.vae import to_tensor
from sdapi.engine.sampling.guidance import Row
from sdapi.engine.stages import UNetCall

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

#: cells of a latent are 8 pixels wide; a cell counts as masked when a pixel just beside it is
_CELL, _CELL_VIEW = 8, 10


class PredictionControl(Control):
    """Changes the clean latents that calls of the UNet predict."""

    def __init__(self, unit: ControlUnit, sampling: "SamplingPass") -> None:
        self._unit = unit
        components = sampling.components
        self._alphas = components.alphas_cumprod
        self._v_prediction = components.v_prediction
        self._pixels = unit.hint_for(is_second_pass=sampling.is_second)
        picture = to_tensor([Image.fromarray(self._pixels[:, :, :3])])
        noise = seeded_generator(sampling.job)
        #: the unit's picture as a latent [1, C, h, w]
        self._origin = encode_pixels(components, sampling.job, picture, noise)

    @abstractmethod
    def changed(self, clean: Tensor, rows: Sequence[Row]) -> Tensor:
        """The clean latents [N, C, h, w] as they should be."""

    def after(self, call: UNetCall, output: Tensor) -> Tensor:
        steps = call.t.round().long().clamp(0, len(self._alphas) - 1).to(self._alphas.device)
        alpha = self._alphas[steps].to(output.device).reshape(-1, 1, 1, 1)
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        if self._v_prediction:
            clean = self.changed(signal * call.x - noise * output, call.rows)
            return (signal * call.x - clean) / noise
        clean = self.changed((call.x - noise * output) / signal, call.rows)
        return (call.x - signal * clean) / noise


class InpaintOnly(PredictionControl):
    """Keeps what is outside of the mask, in every prediction and in the finished picture."""

    def __init__(self, unit: ControlUnit, sampling: "SamplingPass") -> None:
        super().__init__(unit, sampling)
        mask = mask_tensor(self._pixels, self._origin.device)
        assert mask is not None, "inpainting modules have a mask"
        #: cells that are drawn anew
        self._drawn = F.max_pool2d(mask, _CELL_VIEW, stride=_CELL, padding=1)
        self._share = min(max(unit.weight, 0.0), 1.0)

    def changed(self, clean: Tensor, rows: Sequence[Row]) -> Tensor:
        blended = clean * self._drawn + self._origin * (1 - self._drawn)
        return blended * self._share + clean * (1 - self._share)

    def pictures(self, images: Sequence[Image.Image]) -> Sequence[Image.Image]:
        return [paste_back(image, self._pixels, self._unit.edge) for image in images]


class ColourFix(PredictionControl):
    """Takes the colours of a picture, and details of what is drawn."""

    def __init__(self, unit: ControlUnit, sampling: "SamplingPass") -> None:
        super().__init__(unit, sampling)
        self._radius = int(unit.threshold_a) * (2 if sampling.is_second else 1)
        self._colours = blurred(self._origin, self._radius)
        self._sharpens = unit.module.endswith("+sharp")

    def changed(self, clean: Tensor, rows: Sequence[Row]) -> Tensor:
        fixed = self._colours + clean - blurred(clean, self._radius)
        if not self._sharpens:
            return fixed
        share = self._unit.threshold_b * 0.01
        soft = share * blurred(fixed, self._radius) + (1 - share) * fixed
        unconds = torch.tensor([row.is_uncond for row in rows], device=clean.device)
        return torch.where(unconds.reshape(-1, 1, 1, 1), soft, fixed)


class Recolour(Control):
    """Gives the finished picture the brightness of the unit's own."""

    def __init__(self, unit: ControlUnit, sampling: "SamplingPass") -> None:
        self._module = unit.module
        self._pixels = unit.hint_for(is_second_pass=sampling.is_second)

    def pictures(self, images: Sequence[Image.Image]) -> Sequence[Image.Image]:
        return [self._recoloured(image) for image in images]

    def _recoloured(self, image: Image.Image) -> Image.Image:
        pixels, brightness = np.asarray(image.convert("RGB")), self._pixels[:, :, 0]
        if pixels.shape[:2] != brightness.shape:
            return image
        luminance = self._module == "recolor_luminance"
        away = cv2.COLOR_RGB2LAB if luminance else cv2.COLOR_RGB2HSV
        back = cv2.COLOR_LAB2RGB if luminance else cv2.COLOR_HSV2RGB
        planes = np.array(cv2.cvtColor(pixels, away))
        planes[:, :, 0 if luminance else 2] = brightness
        return Image.fromarray(np.asarray(cv2.cvtColor(planes, back), np.uint8))


def blurred(latent: Tensor, radius: int) -> Tensor:
    """The mean of the cells around each, up to `radius` away; edges are drawn out."""
    padded = F.pad(latent, (radius,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * radius + 1, stride=1)


def paste_back(image: Image.Image, pixels: Pixels, edge: int) -> Image.Image:
    """A drawn picture inside of the mask in `pixels` [H, W, 4], and those outside of it.

    The mask grows by `edge` pixels and is softened by as many. A picture of another size stays.
    """
    drawn = np.asarray(image.convert("RGB"), np.float32)
    if drawn.shape[:2] != pixels.shape[:2]:
        return image
    mask = (pixels[:, :, 3] > 127).astype(np.float32)
    if edge > 0:
        grown = cv2.dilate(mask, np.ones((edge, edge), np.uint8))
        mask = np.asarray(cv2.blur(grown, (edge, edge)), np.float32)
    share: NDArray[np.float32] = mask[:, :, None]
    mixed = share * drawn + (1 - share) * pixels[:, :, :3].astype(np.float32)
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
