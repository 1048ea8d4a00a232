"""The server's checkpoint, loaded ahead of the first job, and tried again while it cannot be."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from sdapi.engine.jobs.extras_job import ExtrasJob
from sdapi.engine.jobs.work import Work
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import ModelUnreadable, ModelUnusable, SDAPIError

log = logging.getLogger(__name__)

#: between tries of what may pass by itself
RETRY_S = 30.0


class Loads(Protocol):
    """What loads checkpoints."""

    def load(self, checkpoint: ModelFile) -> None:
        """Make a checkpoint ready for jobs to come."""
        ...


@dataclass(frozen=True, slots=True)
class LoadFault:
    """A checkpoint that could not be loaded, and why."""

    file: ModelFile
    reason: str
    #: nothing can be drawn with it until it is mended; else it was the moment's: memory, a device
    is_of_file: bool
    #: it may be gone without a change of the file
    may_pass: bool

    @classmethod
    def of(cls, file: ModelFile, error: Exception) -> "LoadFault":
        """What an error of a load says of the file."""
        reason = error.detail if isinstance(error, SDAPIError) else type(error).__name__
        is_of_file = isinstance(error, ModelUnusable)
        # The file's time does not tell of changes in its sidecar, or in the folders of a folder.
        has_parts = file.sidecar is not None or file.path.is_dir()
        is_lasting = is_of_file and not has_parts and not isinstance(error, ModelUnreadable)
        return cls(file, reason, is_of_file, not is_lasting)


class Preload:
    """One worker's. Only `request` and `fault` are for other threads.

    `first_checkpoint` tells which to begin with, None while there is none.
    """

    def __init__(
        self,
        first_checkpoint: Callable[[], ModelFile | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_checkpoint = first_checkpoint
        self._clock = clock
        #: a checkpoint to load before the next job; a later one replaces it
        self._wanted: ModelFile | None = None
        #: what the last load met; None when it went well, and before it
        self.fault: LoadFault | None = None
        self._has_begun = False
        #: how the fault's file was at the last look, None before it
        self._last_seen: ModelFile | None = None
        self._tried_at = 0.0

    def request(self, checkpoint: ModelFile) -> None:
        """Load a checkpoint once no job runs; a failure becomes the `fault`."""
        self._wanted = checkpoint

    def look(self, engine: Loads, *, is_idle: bool) -> None:
        """Load what is wanted, or was mended; while no job waits, also what may have passed."""
        if (wanted := self._wanted) is not None:
            self._wanted = None
            self._load(engine, wanted)
        elif not self._has_begun and (first := self._first_checkpoint()) is not None:
            self._load(engine, first)
        elif (fault := self.fault) is not None:
            self._try_again(engine, fault, is_idle=is_idle)

    def note_use(self, job: Work) -> None:
        """What a job has been drawn with can be used after all."""
        if self.fault is None or isinstance(job, ExtrasJob):
            return
        if job.checkpoint.path == self.fault.file.path:
            self.fault = None

    def _load(self, engine: Loads, checkpoint: ModelFile) -> None:
        """Load ahead of the first job that needs it, which tells its caller what is wrong."""
        self._has_begun = True
        try:
            engine.load(checkpoint)
        except Exception as error:  # the thread goes on: other checkpoints can be drawn with
            found = LoadFault.of(checkpoint, error)
            if found != self.fault:  # once, however often it is tried
                is_known = isinstance(error, SDAPIError)
                trace = None if is_known else error
                log.warning("%s cannot be loaded: %s", checkpoint.path, error, exc_info=trace)
            self.fault = found
        else:
            self.fault = None
        self._tried_at = self._clock()

    def _try_again(self, engine: Loads, fault: LoadFault, *, is_idle: bool) -> None:
        """Once the file has changed and rests, or after a while."""
        failed, last_seen = fault.file, self._last_seen
        with suppress(OSError):
            now = self._last_seen = ModelFile.of(failed.path, failed.sidecar)
            is_mended = now == last_seen != failed
            is_due = fault.may_pass and is_idle and self._clock() - self._tried_at >= RETRY_S
            if is_mended or is_due:
                self._load(engine, now)
