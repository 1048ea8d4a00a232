"""Modules that inpaint: what is not masked stays, and inpainting checkpoints see the unit's mask.

Contract: controlnet-api 6 and 7.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sdapi.engine.control.control import Control
from sdapi.engine.control.hints import mask_tensor
from sdapi.engine.control.modules.encoding import encode_sampled, picture_tensor
from sdapi.engine.control.modules.prediction import PredictionControl
from sdapi.engine.control.unit import ControlUnit, Pixels
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.sampling.denoising.guidance import Row
from sdapi.engine.sampling.noise import ImageNoise

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

INPAINTING: Final = frozenset({"inpaint", "inpaint_only", "inpaint_only+lama"})
#: cells of a latent are 8 pixels wide; a cell counts as masked when a pixel just beside it is
_CELL, _CELL_VIEW = 8, 10


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


class InpaintFilled(InpaintOnly):
    """Begins with the filled picture in the noise, so that its colours are met."""

    def begun(self, sampling: "SamplingPass") -> "SamplingPass":
        noise = sampling.noise
        # img2img and a second pass begin with a picture anyway.
        if sampling.start is not None or noise.shape != tuple(self._origin.shape[1:]):
            return sampling
        alpha = float(sampling.components.alphas_cumprod[-1])
        return replace(sampling, noise=_FilledNoise(noise, self._origin, alpha))


class _FilledNoise(ImageNoise):
    """Draws whose first has a picture in it, as far as at the last of the training's steps."""

    def __init__(self, noise: ImageNoise, origin: Tensor, alpha: float) -> None:
        super().__init__(noise.source, noise.shape, noise.seeds)
        self._origin, self._alpha = origin, alpha

    def first(self) -> Tensor:
        noise = super().first()
        return self._alpha**0.5 * self._origin.to(noise) + (1 - self._alpha) ** 0.5 * noise


class InpaintInputs(Control):
    """Gives an inpainting checkpoint the unit's mask and picture for its further inputs."""

    def __init__(self, unit: ControlUnit, sampling: "SamplingPass") -> None:
        pixels = unit.hint_for(is_second_pass=sampling.is_second)
        picture = picture_tensor(pixels)
        mask = mask_tensor(pixels, picture.device)
        assert mask is not None, "inpainting modules have a mask"
        # Masked pixels are mid-grey, as in the pictures that such checkpoints were trained on.
        latent = encode_sampled(sampling, picture * (1 - mask))
        small = F.max_pool2d(mask, _CELL).to(latent.device)
        #: mask and latent [1, 1 + C, h, w]
        self._inputs = torch.cat([small, latent], dim=1).to(sampling.models.device)

    def before(self, call: UNetCall) -> None:
        theirs = call.image_cond
        # A refiner of another kind takes none.
        if theirs is not None and theirs.shape[1:] == self._inputs.shape[1:]:
            call.image_cond = self._inputs.expand(theirs.shape[0], -1, -1, -1)


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
