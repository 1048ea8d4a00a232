"""Loaded models by bytes: the least recently used go first, what is in use stays.

Two tiers: the device a worker draws on, and main memory, where a model waits at the cost of a copy
instead of a load. On a CPU they are one. A cache belongs to one worker thread; only the figures
are read by others.
"""

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

log = logging.getLogger(__name__)


class Movable(Protocol):
    """A model that knows its size and can change its device."""

    @property
    def size_bytes(self) -> int: ...

    def move(self, device: torch.device) -> None: ...


M = TypeVar("M", bound=Movable)
_CPU = torch.device("cpu")


@dataclass(slots=True)
class _Entry(Generic[M]):
    value: M
    on_device: bool = False
    #: uses that need it on the device, and those that only need it in memory
    pins: int = 0
    holds: int = 0


class ModelCache(Generic[M]):
    """Models under their keys, within a byte budget for each tier.

    A model larger than a budget is kept alone.
    """

    def __init__(self, device: torch.device, ram_bytes: int, device_bytes: int) -> None:
        self._device = device
        self._ram_bytes = ram_bytes
        self._device_bytes = device_bytes if device.type != "cpu" else ram_bytes
        self._entries: OrderedDict[Hashable, _Entry[M]] = OrderedDict()
        #: uses that found their model in memory, and those that did not
        self.hits = 0
        self.misses = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    @property
    def size_bytes(self) -> int:
        return sum(entry.value.size_bytes for entry in list(self._entries.values()))

    @contextmanager
    def use(self, key: Hashable, load: Callable[[], M]) -> Generator[M]:
        """The model of a key, loaded if needed, on the device and pinned while the block runs.

        A failing `load` leaves every cached model as it was.
        """
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            entry = self._entries[key] = _Entry(load())
        else:
            self.hits += 1
        self._entries.move_to_end(key)
        entry.pins += 1
        try:
            self._make_room()
            if not entry.on_device:
                entry.value.move(self._device)
                entry.on_device = True
            yield entry.value
        finally:
            entry.pins -= 1

    @contextmanager
    def hold(self, key: Hashable) -> Generator[None]:
        """Keep a model that is in memory there while the block runs; it may leave the device."""
        entry = self._entries[key]
        entry.holds += 1
        try:
            yield
        finally:
            entry.holds -= 1

    def is_on_device(self, key: Hashable) -> bool:
        """Whether a use of this model would move nothing."""
        return (entry := self._entries.get(key)) is not None and entry.on_device

    def clear(self) -> None:
        """Drop every model that is not in use."""
        for key in [k for k, entry in self._entries.items() if entry.pins + entry.holds == 0]:
            self._drop(key, "asked to")

    def _make_room(self) -> None:
        while self.size_bytes > self._ram_bytes and (key := self._oldest_idle()) is not None:
            self._drop(key, f"models exceed {self._ram_bytes} bytes of memory")
        if self._device.type == "cpu":
            return
        for entry in self._entries.values():
            if self._device_use() <= self._device_bytes:
                break
            if entry.on_device and entry.pins == 0:
                entry.value.move(_CPU)
                entry.on_device = False

    def _device_use(self) -> int:
        return sum(e.value.size_bytes for e in self._entries.values() if e.on_device or e.pins > 0)

    def _oldest_idle(self) -> Hashable | None:
        idle = (k for k, entry in self._entries.items() if entry.pins + entry.holds == 0)
        return next(idle, None)

    def _drop(self, key: Hashable, reason: str) -> None:
        size = self._entries.pop(key).value.size_bytes
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        log.info("model dropped from memory: %s, %d bytes: %s", key, size, reason)
