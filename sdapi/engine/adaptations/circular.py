"""Pictures that tile: convolutions that wrap around (contract: webui-generation 12)."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager

from torch import nn


@contextmanager
def circular_padding(modules: Iterable[nn.Module], *, wanted: bool) -> Generator[None]:
    """Let every 2-D convolution pad with the opposite edge, for as long as the block runs."""
    convolutions: list[nn.Conv2d] = []
    if wanted:
        convolutions = [
            each
            for module in modules
            for each in module.modules()
            if isinstance(each, nn.Conv2d) and each.padding_mode == "zeros"
        ]
    try:
        for each in convolutions:
            each.padding_mode = "circular"
        yield
    finally:
        for each in convolutions:
            each.padding_mode = "zeros"
