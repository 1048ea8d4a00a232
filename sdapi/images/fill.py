"""Masked content "fill": the masked part of a picture, filled from what surrounds it."""

from typing import Final

from PIL import Image, ImageFilter

from sdapi.images.masks import kept_part

#: (blur radius, times it is laid over the wider ones), contract: webui-generation 10.3
_LAYERS: Final = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))


def fill_masked(image: Image.Image, mask: Image.Image) -> Image.Image:
    """RGB: the picture with the masked part replaced by ever wider blurs of the rest.

    `mask` is grey and of the picture's size.
    """
    kept = kept_part(image, mask)
    filled = Image.new("RGBA", image.size)
    for radius, times in _LAYERS:
        # Blurred alpha-multiplied: what is masked must not darken its neighbours.
        layer = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            filled.alpha_composite(layer)
    return filled.convert("RGB")
