"""The options in force: read from `config.json` at start, changed by requests."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdapi.errors import StorageFailed
from sdapi.options import Options


class ServerOptions:
    """Holds the current `Options`; a reader sees one whole state or the next."""

    def __init__(self, options: Options, file: Path | None = None) -> None:
        #: guards read-change-write in `change` and `change_and_save`, the file among it
        self._lock = threading.Lock()
        self._current = options
        self._file = file

    @property
    def current(self) -> Options:
        """What holds for a request that comes now."""
        return self._current

    def change(self, values: Mapping[str, Any]) -> None:
        """Set options for later requests; raises `UnknownName` and changes nothing."""
        with self._lock:
            self._current = self._current.overlay(values)

    def change_and_save(self, values: Mapping[str, Any]) -> None:
        """As `change`, and write all of them to the options file.

        Raises `UnknownName` or `StorageFailed`; nothing is changed then.
        """
        with self._lock:
            changed = self._current.overlay(values)
            if self._file is not None:
                try:
                    changed.save(self._file)
                except OSError as error:
                    raise StorageFailed(f"cannot write {self._file}: {error.strerror}") from error
            self._current = changed
