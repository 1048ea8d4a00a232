"""Loops of the queue that end with the server and not before."""

import logging
from dataclasses import dataclass
from types import TracebackType

from sdapi.errors import SDAPIError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GoingOn:
    """A context for one turn of a loop: logs what it raises, and lets the loop go on.

    What is foreseen, as a store that is away, is a line. Anything else is a defect and gets its
    traceback: nobody awaits these loops, so one that ended would do so without a word, and the
    service would stand still while it says that it is ready. The loop pauses between its turns.
    """

    failed: str

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, SDAPIError):
            log.warning("%s: %s", self.failed, error)
        elif isinstance(error, Exception):
            log.error(self.failed, exc_info=error)
        return isinstance(error, Exception)
