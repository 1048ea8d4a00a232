"""What torch raises when memory is short, as the error that clients see."""

import gc
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch

from sdapi.errors import OutOfMemory

#: what allocators say that have no class for it: torch's on a CPU, and CUDA's libraries
_TEXTS = ("not enough memory", "allocate memory", "out of memory", "_ALLOC_FAILED")


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


def _is_shortage(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(text in str(error) for text in _TEXTS)
