"""The options in force: read from `config.json` at start, changed in memory by requests."""

import threading
from collections.abc import Mapping
from typing import Any

from sdapi.options import Options


class ServerOptions:
    """Holds the current `Options`; a reader sees one whole state or the next."""

    def __init__(self, options: Options) -> None:
        #: guards read-change-write in `change`
        self._lock = threading.Lock()
        self._current = options

    @property
    def current(self) -> Options:
        return self._current

    def change(self, values: Mapping[str, Any]) -> None:
        """Set options for later requests; raises `UnknownName` and changes nothing."""
        with self._lock:
            self._current = self._current.overlay(values)
