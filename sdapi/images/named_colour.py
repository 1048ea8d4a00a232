"""Colours as options name them."""

from PIL import ImageColor

from sdapi.errors import BadRequest


def rgba(name: str, field: str) -> tuple[int, int, int, int]:
    """A colour such as "#ffffff" or "white"; raises `BadRequest` that names the field."""
    try:
        red, green, blue, *alpha = ImageColor.getrgb(name)
    except ValueError:
        raise BadRequest(f"{field}: {name!r} is no colour") from None
    return red, green, blue, alpha[0] if alpha else 255
