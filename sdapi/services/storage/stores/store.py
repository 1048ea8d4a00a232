"""What an object store can do, and why it may refuse."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from sdapi.object_url import ObjectUrl


class Reason(StrEnum):
    """Why a store did not do as it was asked."""

    #: no answer, a broken connection, 5xx, throttling: another try may work
    UNREACHABLE = "unreachable"
    #: what arrived is not what was sent: another try may work
    DAMAGED = "damaged"
    CREDENTIALS = "credentials"
    CLOCK = "clock"
    NO_BUCKET = "no_bucket"
    FORBIDDEN = "forbidden"
    MISSING = "missing"
    #: there is another object of this name already
    EXISTS = "exists"
    BAD_NAME = "bad_name"
    TOO_LARGE = "too_large"
    #: anything else
    REFUSED = "refused"


_PASSING = frozenset({Reason.UNREACHABLE, Reason.DAMAGED})
_OF_BUCKET = frozenset({Reason.UNREACHABLE, Reason.CREDENTIALS, Reason.CLOCK, Reason.NO_BUCKET})


class StoreError(Exception):
    """A store did not do it; the text is a sentence for operators and callers, without secrets."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason

    @property
    def is_passing(self) -> bool:
        """Whether the next try may work as it is."""
        return self.reason in _PASSING

    @property
    def concerns_bucket(self) -> bool:
        """Whether other objects of the bucket would fail as well."""
        return self.reason in _OF_BUCKET


class TransferStopped(Exception):
    """Nobody wants the object any more."""


def never() -> bool:
    """Of a transfer that nobody stops."""
    return False


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store tells of an object. `etag` changes with the content."""

    size_bytes: int
    etag: str


class ObjectStore(Protocol):
    """Objects by URL. Every method may raise `StoreError`, and is safe to call from any thread."""

    def put(self, url: ObjectUrl, path: Path, *, replaces: bool) -> None:
        """Store a file's bytes, whole or not at all, and make sure that they arrived.

        Without `replaces` an object of other content stays and the reason is `EXISTS`.
        """
        ...

    def head(self, url: ObjectUrl) -> ObjectInfo: ...

    def read(self, url: ObjectUrl, *, max_bytes: int) -> bytes:
        """An object's bytes, at most so many."""
        ...

    def download(
        self,
        url: ObjectUrl,
        path: Path,
        *,
        max_bytes: int,
        is_stopped: Callable[[], bool] = never,
    ) -> None:
        """Write an object's bytes to a file, which may be left in part.

        Raises `TransferStopped` soon after `is_stopped` says so.
        """
        ...

    def names(self, prefix: ObjectUrl) -> Iterator[str]:
        """The names of the objects right below a prefix."""
        ...

    def signed(self, url: ObjectUrl, seconds: int) -> str:
        """A link that anyone may read the object with for so long; asks nobody."""
        ...

    def check(self, url: ObjectUrl) -> None:
        """Raise unless objects could be written below a prefix; writes none."""
        ...
