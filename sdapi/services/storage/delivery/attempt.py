"""One attempt to give a file to its store, and what is written down of it. Everything blocks."""

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdapi.metrics import Metrics
from sdapi.object_url import ObjectUrl
from sdapi.services.storage.delivery.outbox import Outbox
from sdapi.services.storage.delivery.renumbering import Renumbering
from sdapi.services.storage.delivery.upload import Upload
from sdapi.services.storage.retrying import with_retries
from sdapi.services.storage.stores.store import ObjectStore, Reason, StoreError

log = logging.getLogger(__name__)

#: the store will never take the file, however often it is offered
_FINAL = (Reason.EXISTS, Reason.BAD_NAME, Reason.TOO_LARGE)
#: after the first failure of its own, doubled by each further one
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
#: numbers that are tried at once where others take them as fast
_MOST_NAMES = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """Why a store did not take a file, or nothing."""

    error: StoreError | None = None
    #: whether it will never be tried again
    is_refused: bool = False
    #: whether it was not tried: another upload has to end first
    is_held: bool = False


class Attempt:
    """Uploads a recorded file, gives it another number where it must, and settles its record."""

    def __init__(
        self,
        outbox: Outbox,
        store: Callable[[ObjectUrl], ObjectStore],
        renumbering: Renumbering,
        metrics: Metrics,
    ) -> None:
        self._outbox = outbox
        self._store = store
        self._renumbering = renumbering
        self._metrics = metrics
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Let no attempt wait for another try."""
        self._stopping.set()

    def made(self, upload: Upload, tries: int, until: float) -> Outcome:
        """Offer a file so often, no try beginning after the monotonic time `until`."""
        try:
            if self._outbox.is_held(upload.id):
                self._outbox.defer(upload.id, 0.0)
                sentence = f"{upload.url}: the picture that it lies beside is not stored yet"
                return Outcome(StoreError(Reason.REFUSED, sentence), is_held=True)
            current = self._outbox.get(upload.id)
            if current is None:  # it is stored, or a newer file of its name is recorded
                return Outcome()
            return self._settled(*self._offered(current, tries, until))
        except (sqlite3.Error, OSError) as problem:
            # The file is offered again, which changes nothing.
            log.warning("the outbox cannot be used: %s", problem)
            return Outcome(StoreError(Reason.REFUSED, f"{upload.url}: the outbox cannot be used"))

    def _offered(
        self, upload: Upload, tries: int, until: float
    ) -> tuple[Upload, StoreError | None, str]:
        """The file under the name it has now, why it is not stored, and its mark."""
        mark, names_left = "", _MOST_NAMES
        try:
            while True:
                mark = _mark(upload.path)
                error, names_left = self._put(upload, tries, until), names_left - 1
                is_taken = error is not None and error.reason is Reason.EXISTS
                if not is_taken or upload.numbering is None or not names_left:
                    return upload, error, mark
                upload = self._renumbering.renamed(upload, upload.numbering)
        except FileNotFoundError:
            error = self._missing(upload)
        except OSError as problem:
            reason = problem.strerror or problem
            error = StoreError(Reason.REFUSED, f"{upload.url}: cannot read {upload.path}: {reason}")
        except StoreError as raised:  # the names of a prefix could not be listed
            error = raised
        return upload, error, mark

    def _put(self, upload: Upload, tries: int, until: float) -> StoreError | None:
        replaces = upload.replaces

        def put() -> None:
            nonlocal replaces
            upload.path.open("rb").close()  # so that an unreadable file is no error of the store
            try:
                self._store(upload.url).put(upload.url, upload.path, replaces=replaces)
            except StoreError as error:
                self._metrics.upload_errors.labels(error.reason).inc()
                if error.reason is Reason.DAMAGED and not replaces:
                    # What lies there now is the damaged rest of this very upload.
                    replaces = True
                    self._outbox.overwrite(upload.id)
                raise

        try:
            with_retries(put, tries=tries, until=until, wait=self._stopping.wait)
        except StoreError as error:
            return error
        except (OSError, sqlite3.Error):
            raise
        except Exception as error:  # a defect must not cost the file: its record stays
            log.exception("an upload failed")
            return StoreError(Reason.REFUSED, f"{upload.url}: {type(error).__name__}")
        return None

    def _missing(self, upload: Upload) -> StoreError:
        """Why a file was not found: it is gone, or something else that it needed was."""
        current = self._outbox.get(upload.id) or upload
        if current.path.exists():
            sentence = f"{upload.url}: a file or folder went while {upload.path} was offered"
            return StoreError(Reason.REFUSED, sentence)
        return StoreError(Reason.BAD_NAME, f"{upload.url}: the file {current.path} is gone")

    def _settled(self, upload: Upload, error: StoreError | None, mark: str) -> Outcome:
        """Write down what became of a file."""
        if error is None:
            is_latest = self._outbox.remove(upload.id)
            if is_latest and not upload.keeps_file and mark == _mark(upload.path):
                upload.path.unlink(missing_ok=True)
            return Outcome()
        may_be_renamed = error.reason is Reason.EXISTS and upload.numbering is not None
        if error.reason in _FINAL and not may_be_renamed:
            if not self._outbox.refuse(upload.id, str(error)):
                return Outcome()  # stored by another server of this data directory, or superseded
            log.error("an upload was given up: %s; the file stays at %s", error, upload.path)
            return Outcome(error, is_refused=True)
        if error.concerns_bucket:  # the file waits no longer than its bucket
            self._outbox.defer(upload.id, 0.0)
            return Outcome(error)
        if not upload.tries:
            log.warning("an upload is pending: %s", error)
        pause_s = min(_FIRST_PAUSE_S * 2.0 ** min(upload.tries, 16), _LONGEST_PAUSE_S)
        self._outbox.defer(upload.id, pause_s)
        return Outcome(error)


def _mark(path: Path) -> str:
    """What another file of the same name would have different; empty without a file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return ""
    return f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
