"""The annotators of one server: networks in memory, one picture at a time, on the CPU.

Preprocessors run before a job is queued, in the thread that prepares it, so a picture that cannot
be read, or a file that is missing, is told at once and the device is never held by them.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sdapi.engine.control.annotators.detected_map import DetectedMap, Pixels
from sdapi.engine.control.annotators.files import annotator_files

#: networks that stay in memory, the least recently used goes first
_KEPT: Final = 2
_Key = tuple[Any, tuple[Path, ...], tuple[int, ...]]


@dataclass(slots=True)
class Annotators:
    """Loads networks from below a folder when they are first asked for; any thread may call."""

    folder: Path
    _networks: OrderedDict[_Key, Any] = field(default_factory=OrderedDict[_Key, Any])
    #: held while a network is loaded or works
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def detect(self, name: str, canvas: Pixels, a: float, b: float, seed: int = 0) -> DetectedMap:
        """The map of a picture [H, W, 3] whose sides are multiples of 64; `a` and `b` are sliders.

        Raises `AnnotatorMissing` that names a file, `ModelUnusable` for one that cannot be read.
        """
        files = annotator_files(name, self.folder)
        from sdapi.engine.control.annotators.recipes import RECIPES, Sliders  # imports torch

        recipe = RECIPES[name]
        with self._lock:
            network = self._network(recipe.load, files)
            return recipe.draw(network, canvas, Sliders(a, b, seed))

    def _network(self, load: Any, files: tuple[Path, ...]) -> Any:
        key: _Key = load, files, tuple(_modified_ns(file) for file in files)
        if key not in self._networks:
            while len(self._networks) >= _KEPT:
                self._networks.popitem(last=False)
            self._networks[key] = load(files)
        self._networks.move_to_end(key)
        return self._networks[key]


def _modified_ns(file: Path) -> int:
    return file.stat().st_mtime_ns
