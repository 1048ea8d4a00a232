"""How many requests for maps a server takes."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import anyio

from sdapi.errors import QueueFull

#: requests at work in all threads, and requests that are let in: the others' pictures wait decoded
_AT_ONCE: Final = 2
_LET_IN: Final = 32


class DetectionLimits:
    """How many requests of one server draw maps, and how many may be here at all."""

    def __init__(self) -> None:
        self.threads = anyio.CapacityLimiter(_AT_ONCE)
        self._let_in = 0

    @contextmanager
    def place(self) -> Generator[None]:
        """Be let in; raises `QueueFull` when too many are."""
        if self._let_in >= _LET_IN:
            raise QueueFull(f"{_LET_IN} requests are at the preprocessors; try again later")
        self._let_in += 1
        try:
            yield
        finally:
            self._let_in -= 1
