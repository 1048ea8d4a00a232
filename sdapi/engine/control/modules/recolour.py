"""`recolor_*`: a finished picture gets a unit's brightness (contract: controlnet-api 7)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from sdapi.engine.control.control import Control
from sdapi.engine.control.unit import ControlUnit

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass


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
