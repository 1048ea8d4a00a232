"""Pictures in answers."""

import base64
import io
from typing import cast

from PIL import Image


def decoded(encoded: str) -> Image.Image:
    """The picture of an answer."""
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def colour(encoded: str) -> tuple[int, ...]:
    """The colour of its first pixel."""
    return cast("tuple[int, ...]", decoded(encoded).convert("RGB").getpixel((0, 0)))
