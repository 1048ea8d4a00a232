"""The annotators of one server: networks in memory, one picture at a time, on the CPU.

Preprocessors run before a job is queued, in the thread that prepares it, so a picture that cannot
be read, or a file that is missing, is told at once and the device is never held by them.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sdapi.engine.control.annotators.detected_map import DetectedMap, Pixels
from sdapi.engine.control.annotators.files import FACES, SEEDED, Fetch, annotator_files
from sdapi.errors import AnnotatorMissing, BadRequest, QueueFull

if TYPE_CHECKING:
    from sdapi.engine.control.annotators.face_finder import FaceFinder

#: networks that stay in memory, the least recently used goes first
_KEPT: Final = 2
_Key = tuple[Any, tuple[Path, ...], tuple[int, ...]]
_MapKey = tuple[object, ...]


@dataclass(slots=True)
class Annotators:
    """Loads networks from below a folder when they are first asked for; any thread may call."""

    folder: Path
    #: looks for faces; None where the server has nothing that does
    faces: "FaceFinder | None" = None
    #: brings files that are missing; None leaves that to the operator
    fetch: Fetch | None = None
    #: maps that are kept for the next time they are asked for
    kept_maps: int = 0
    #: how long a picture waits for the one before it, and how many may wait
    patience_s: float = 120.0
    most_waiting: int = 8
    _maps: OrderedDict[_MapKey, DetectedMap] = field(
        default_factory=OrderedDict[_MapKey, DetectedMap]
    )
    _networks: OrderedDict[_Key, Any] = field(default_factory=OrderedDict[_Key, Any])
    #: held while a network is loaded or works
    _lock: threading.Lock = field(default_factory=threading.Lock)
    #: held while files are fetched, which may take longer; pictures of others go on meanwhile
    _fetching: threading.Lock = field(default_factory=threading.Lock)
    #: each that waits or works has one
    _places: threading.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._places = threading.Semaphore(self.most_waiting + 1)

    def detect(self, name: str, canvas: Pixels, a: float, b: float, seed: int = 0) -> DetectedMap:
        """The map of a picture [H, W, 3] whose sides are multiples of 64; `a` and `b` are sliders.

        Raises `AnnotatorMissing` that names a file, `ModelUnusable` for one that cannot be read,
        `QueueFull` when others keep the networks busy.
        """
        with self._place():
            if name == FACES:
                return self._faces(canvas, a, b)
            files, seed = self._files(name), seed if name in SEEDED else 0
            key = (name, files, _modified(files), a, b, seed, canvas.shape, _digest(canvas))
            with self._alone(self._lock):
                return self._kept(key, lambda: self._drawn(name, files, canvas, (a, b, seed)))

    @contextmanager
    def _place(self) -> Generator[None]:
        """One of the places of those that wait: each holds a thread."""
        if not self._places.acquire(blocking=False):
            raise QueueFull(
                f"{self.most_waiting} pictures wait for the preprocessors; try again later"
            )
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def _alone(self, lock: threading.Lock) -> Generator[None]:
        if not lock.acquire(timeout=self.patience_s):
            raise QueueFull(
                f"another picture has kept the preprocessors busy for {self.patience_s:g} s; "
                "try again later"
            )
        try:
            yield
        finally:
            lock.release()

    def _files(self, name: str) -> tuple[Path, ...]:
        try:
            return annotator_files(name, self.folder)
        except AnnotatorMissing:
            if self.fetch is None:
                raise
        with self._alone(self._fetching):
            return annotator_files(name, self.folder, self.fetch)

    def _kept(self, key: _MapKey, draw: Callable[[], DetectedMap]) -> DetectedMap:
        """The map of a key, drawn unless it is kept."""
        if key not in self._maps:
            self._maps[key] = draw()
        self._maps.move_to_end(key)
        found = self._maps[key]
        while len(self._maps) > self.kept_maps:
            self._maps.popitem(last=False)
        return found

    def _drawn(
        self, name: str, files: tuple[Path, ...], canvas: Pixels, sliders: tuple[float, float, int]
    ) -> DetectedMap:
        from sdapi.engine.control.annotators.recipes import RECIPES, Sliders  # imports torch

        recipe = RECIPES[name]
        return recipe.draw(self._network(recipe.load, files), canvas, Sliders(*sliders))

    def _faces(self, canvas: Pixels, most: float, least_confidence: float) -> DetectedMap:
        from sdapi.engine.control.annotators.kinds.face_mesh import draw_faces  # imports OpenCV

        if self.faces is None:
            raise BadRequest(
                f"the preprocessor {FACES!r} needs the portrait part of the server, which "
                "--no-portrait leaves out"
            )
        with self._alone(self._lock):
            meshes = self.faces.meshes(canvas)
        height, width = canvas.shape[:2]
        drawn = draw_faces(
            meshes, height, width, most=round(most), least_confidence=least_confidence
        )
        return DetectedMap(drawn)

    def _network(self, load: Any, files: tuple[Path, ...]) -> Any:
        key: _Key = load, files, _modified(files)
        if key not in self._networks:
            while len(self._networks) >= _KEPT:
                self._networks.popitem(last=False)
            self._networks[key] = load(files)
        self._networks.move_to_end(key)
        return self._networks[key]


def _modified(files: tuple[Path, ...]) -> tuple[int, ...]:
    return tuple(file.stat().st_mtime_ns for file in files)


def _digest(canvas: Pixels) -> bytes:
    return hashlib.sha256(canvas.tobytes()).digest()
