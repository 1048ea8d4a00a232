"""What torch raises for short memory and for small pictures, as the errors that clients see."""

import gc
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch

from sdapi.errors import BadRequest, OutOfMemory

#: what allocators say that have no class for it: torch's on a CPU, and CUDA's libraries
_SHORTAGE = ("not enough memory", "allocate memory", "out of memory", "_ALLOC_FAILED")
#: what group normalisation says where a layer is left with a single value for each channel
_TOO_SMALL = "Expected more than 1 value per channel"


@contextmanager
def telling_shortage(
    device: torch.device, wanted: str, advice: str, relieve: Callable[[], None]
) -> Generator[None]:
    """Turn a shortage into `OutOfMemory`, and give memory back.

    That is what the frames of the failed work still hold, and what `relieve` drops.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_shortage(error):
            raise
        traceback.clear_frames(error.__traceback__)
        relieve()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory(f"out of memory on {device} for {wanted}; {advice}") from error


@contextmanager
def telling_too_small(wanted: str) -> Generator[None]:
    """Turn the refusal of a model's deepest layer into `BadRequest`; `wanted` are the sizes."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(_TOO_SMALL):
            raise
        raise BadRequest(
            f"width, height: {wanted} is too small for this checkpoint, whose deepest layer is "
            "left with a single value; try twice the size"
        ) from error


def _is_shortage(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(text in str(error) for text in _SHORTAGE)
