"""What torch raises for pictures too small for a model, as the error that clients see."""

from collections.abc import Generator
from contextlib import contextmanager

from sdapi.errors import BadRequest

#: what group normalisation says where a layer is left with a single value for each channel
_TEXT = "Expected more than 1 value per channel"


@contextmanager
def telling_too_small(wanted: str) -> Generator[None]:
    """Turn the refusal of a model's deepest layer into `BadRequest`; `wanted` are the sizes."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(_TEXT):
            raise
        raise BadRequest(
            f"width, height: {wanted} is too small for this checkpoint, whose deepest layer is "
            "left with a single value; try twice the size"
        ) from error
