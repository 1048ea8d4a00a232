"""What goes wrong with a request, when and how often."""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Fault(StrEnum):
    """One thing that goes wrong."""

    INTERNAL_ERROR = "500 and nothing stored"
    SERVICE_BUSY = "503 and nothing stored"
    RESET = "the connection is reset and nothing stored"
    LOST_ANSWER = "stored, and the connection is reset before the answer"
    WRONG_CRC = "other bytes are stored than were sent, as the checksum tells"
    SLOW = "the answer takes its time"


@dataclass
class Faults:
    """Told by a test; asked once for each request."""

    #: of all requests
    rate: float = 0.0
    kinds: Sequence[Fault] = (
        Fault.INTERNAL_ERROR,
        Fault.SERVICE_BUSY,
        Fault.RESET,
        Fault.LOST_ANSWER,
        Fault.WRONG_CRC,
    )
    slow_s: float = 1.0
    #: before anything else: the next requests, in order; None is no fault
    script: list[Fault | None] = field(default_factory=list[Fault | None])
    seed: int = 0
    count: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def next(self) -> Fault | None:
        with self._lock:
            fault = None
            if self.script:
                fault = self.script.pop(0)
            elif self._random.random() < self.rate:
                fault = self._random.choice(list(self.kinds))
            self.count += fault is not None
            return fault
