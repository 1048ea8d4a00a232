"""The names that objects below a prefix have, so that running numbers go on behind them."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sdapi.object_url import ObjectUrl
from sdapi.services.storage.stores.store import StoreError

log = logging.getLogger(__name__)

#: how long a store that did not list a prefix is not asked again
_FAILED_S = 30.0
#: one lists, and others who want the same names wait for it so long
_WAIT_S = 60.0
#: prefixes whose names are kept: folders of a date come and go
_KEPT = 64


@dataclass(slots=True)
class _Prefix:
    #: held by whoever lists
    listing: threading.Lock = field(default_factory=threading.Lock)
    names: set[str] | None = None


class Names:
    """What prefixes held when they were listed, and what was named since. Safe in any thread."""

    def __init__(
        self,
        listed: Callable[[ObjectUrl], Iterable[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listed = listed
        self._clock = clock
        #: guards everything below; never held while a store is asked
        self._lock = threading.Lock()
        self._prefixes: OrderedDict[ObjectUrl, _Prefix] = OrderedDict()
        self._failed_until: dict[tuple[str, str], float] = {}

    def known(self, prefix: ObjectUrl) -> tuple[str, ...]:
        """The names below a prefix; blocks for as long as the store takes to list them once.

        None are known of a store that is away, which is asked again half a minute later.
        """
        entry = self._entry(prefix)
        if entry.names is None and self._may_ask(prefix) and entry.listing.acquire(timeout=_WAIT_S):
            try:
                if entry.names is None and self._may_ask(prefix):
                    self._list(prefix, entry)
            except StoreError as error:
                log.warning("%s; numbers go on from the files on disk", error)
            finally:
                entry.listing.release()
        with self._lock:
            return tuple(entry.names or ())

    def listed_anew(self, prefix: ObjectUrl) -> tuple[str, ...]:
        """The names below a prefix as the store has them now, and ours. Raises `StoreError`."""
        entry = self._entry(prefix)
        self._list(prefix, entry)
        with self._lock:
            return tuple(entry.names or ())

    def add(self, url: ObjectUrl) -> None:
        """Count an object that is going to be there."""
        with self._lock:
            entry = self._prefixes.get(url.parent)
            if entry is not None and entry.names is not None:
                entry.names.add(url.name)

    def _list(self, prefix: ObjectUrl, entry: _Prefix) -> None:
        bucket = (prefix.scheme, prefix.bucket)
        try:
            found = set(self._listed(prefix))
        except StoreError:
            with self._lock:
                self._failed_until[bucket] = self._clock() + _FAILED_S
            raise
        with self._lock:
            self._failed_until.pop(bucket, None)
            entry.names = found | (entry.names or set())

    def _may_ask(self, prefix: ObjectUrl) -> bool:
        with self._lock:
            return self._clock() >= self._failed_until.get((prefix.scheme, prefix.bucket), 0.0)

    def _entry(self, prefix: ObjectUrl) -> _Prefix:
        with self._lock:
            entry = self._prefixes.setdefault(prefix, _Prefix())
            self._prefixes.move_to_end(prefix)
            while len(self._prefixes) > _KEPT:
                self._prefixes.popitem(last=False)
            return entry
