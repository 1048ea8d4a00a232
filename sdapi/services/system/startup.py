"""How long the parts of the start took."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psutil


class Startup:
    """Collects the seconds of each part; parts run at the same time, so they need not add up."""

    def __init__(self) -> None:
        #: guards `_parts`
        self._lock = threading.Lock()
        self._parts: dict[str, float] = {}
        self._begun = psutil.Process().create_time()
        self._total = 0.0

    @contextmanager
    def part(self, name: str) -> Generator[None]:
        """Time what runs inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._parts[name] = time.perf_counter() - started
                self._total = time.time() - self._begun

    def report(self) -> dict[str, Any]:
        """Seconds from the process's first moment to the end of the last part, and each part."""
        with self._lock:
            return {"total": self._total, "records": dict(self._parts)}
