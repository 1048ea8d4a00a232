"""Maps as answers show them."""

import numpy as np
from PIL import Image

from sdapi.engine.control.unit import Pixels


def shown_map(hint: Pixels) -> Image.Image:
    """A map [H, W, 3 or 4]; what an inpainting mask covers is half transparent."""
    if hint.shape[2] == 3:
        return Image.fromarray(hint)
    alpha = (255 - hint[:, :, 3] * 0.5).astype(np.uint8)
    return Image.fromarray(np.dstack([hint[:, :, :3], alpha]))
