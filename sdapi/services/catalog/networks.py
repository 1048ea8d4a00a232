"""The LoRAs, hypernetworks and embeddings on disk, and which file a name means.

Contract: webui-generation 13.4 and 14, webui-scripts 17.
"""

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sdapi.engine.weights.model_file import ModelFile
from sdapi.object_url import is_object_url
from sdapi.services.catalog.model_files.finding import find_files
from sdapi.services.catalog.model_files.hashes import HashCache
from sdapi.services.catalog.model_files.safetensors_header import read_metadata
from sdapi.services.catalog.object_models import FetchedModels
from sdapi.settings import Settings

_LORA_SUFFIXES = {".safetensors", ".pt", ".ckpt"}
_EMBEDDING_SUFFIXES = {".pt", ".bin", ".safetensors", ".png", ".webp", ".jxl", ".avif"}
_PREVIEW = ".preview"
_NEVER_ALIASES = {"none"}
SHORT_HASH = 12


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA, or one of its kin, under the names that prompts have for it."""

    name: str
    path: Path
    metadata: dict[str, str] = field(default_factory=dict[str, str], hash=False)

    @property
    def alias(self) -> str:
        """What its maker called it."""
        return self.metadata.get("ss_output_name") or self.name


class NetworkCatalog:
    """What is on disk; looks again for a name it does not know. Safe to use from any thread."""

    def __init__(self, settings: Settings, hashes: HashCache) -> None:
        self._settings = settings
        #: of the tensors alone
        self.hashes = hashes
        #: guards everything below
        self._lock = threading.Lock()
        self._loras: dict[str, Lora] | None = None
        self._aliases: dict[str, Lora] = {}
        self._forbidden: set[str] = set()
        #: files for those who know their names, in the folders or not
        self._lent: dict[str, Lora] = {}
        #: headers by file, so that a new look reads those of new files only
        self._metadata: dict[ModelFile, dict[str, str]] = {}
        self._embeddings: tuple[ModelFile, ...] = ()
        self._embedding_folders: dict[Path, int] | None = None

    def refresh(self) -> None:
        """Scan the folders of LoRAs."""
        with self._lock:
            self._scan_loras()

    @property
    def loras(self) -> list[Lora]:
        """The LoRAs and their kin."""
        with self._lock:
            return list(self._known_loras().values())

    def lora(self, name: str, objects: FetchedModels | None = None) -> Lora | None:
        """The file of a base name, or of an alias that no other file claims; letter case counts.

        Or of an object's URL, which raises what `FetchedModels.file` does.
        """
        if objects is not None and is_object_url(name):
            path = objects.file(name, field="lora")
            return Lora(path.stem, path, read_metadata(path))
        with self._lock:
            if (lent := self._lent.get(name)) is not None:
                return lent
            self._known_loras()
            if (found := self._lookup(name)) is None:
                self._scan_loras()
                found = self._lookup(name)
            return found

    def lend(self, name: str, path: Path) -> None:
        """Know a file by a name from now on, whatever the folders hold; no listing shows it.

        A name with a slash is no file's base name, so that it hides none.
        """
        lora = Lora(name, path, read_metadata(path))
        with self._lock:
            self._lent[name] = lora

    @contextmanager
    def lent(self, name: str, path: Path) -> Generator[None]:
        """Know a file by a name while the block runs, whatever the folders hold."""
        self.lend(name, path)
        try:
            yield
        finally:
            with self._lock:
                del self._lent[name]

    def preferred_name(self, lora: Lora, option: str) -> str:
        """What a prompt should call it; `option` is `lora_preferred_name`."""
        if option == "Filename" or lora.alias.lower() in self._forbidden:
            return lora.name
        return lora.alias

    def has_base_name(self, name: str) -> bool:
        """Whether a LoRA file has this name."""
        with self._lock:
            return name in self._known_loras()

    def shorthash(self, lora: Lora) -> str | None:
        """What infotext tells of it, None while unknown."""
        known = lora.metadata.get("sshs_model_hash") or self.hashes.get(lora.path)
        return known[:SHORT_HASH] if known else None

    def hypernetwork(self, name: str) -> Path | None:
        """The file of a hypernetwork."""
        return self.hypernetworks.get(name)

    @property
    def hypernetworks(self) -> dict[str, Path]:
        """Every hypernetwork by name; a file called `None` has none."""
        found = find_files(self._settings.hypernetwork_dir, {".pt"})
        return {path.stem: path for path in found if path.stem != "None"}

    def embeddings(self) -> tuple[ModelFile, ...]:
        """Every embedding's file; the same object until a folder has changed."""
        with self._lock:
            folders = _folder_times(self._settings.embeddings_dir)
            if folders != self._embedding_folders:
                self._embedding_folders = folders
                self._embeddings = tuple(_embedding_files(self._settings.embeddings_dir))
            return self._embeddings

    def _lookup(self, name: str) -> Lora | None:
        names = self._loras or {}
        return names.get(name) if name.lower() in self._forbidden else self._aliases.get(name)

    def _known_loras(self) -> dict[str, Lora]:
        if self._loras is None:
            self._scan_loras()
        assert self._loras is not None
        return self._loras

    def _scan_loras(self) -> None:
        loras: dict[str, Lora] = {}
        aliases: dict[str, Lora] = {}
        forbidden = set(_NEVER_ALIASES)
        metadata: dict[ModelFile, dict[str, str]] = {}
        for folder in self._settings.lora_dirs:
            for path in find_files(folder, _LORA_SUFFIXES):
                if (file := _model_file(path)) is None:
                    continue
                known = self._metadata.get(file)
                metadata[file] = read_metadata(path) if known is None else known
                lora = Lora(path.stem, path, metadata[file])
                if lora.alias in aliases:
                    forbidden.add(lora.alias.lower())
                loras[lora.name] = aliases[lora.name] = aliases[lora.alias] = lora
        self._loras, self._aliases, self._forbidden = loras, aliases, forbidden
        self._metadata = metadata


def _embedding_files(folder: Path) -> Iterator[ModelFile]:
    for path in find_files(folder, _EMBEDDING_SUFFIXES):
        # Pictures beside an embedding that show what it does.
        if not path.stem.endswith(_PREVIEW) and (file := _model_file(path)) is not None:
            yield file


def _folder_times(folder: Path) -> dict[Path, int]:
    """When each folder of a tree was changed: a file came, went, or was replaced."""
    times: dict[Path, int] = {}
    for name, _, _ in os.walk(folder):
        try:
            times[Path(name)] = os.stat(name).st_mtime_ns
        except OSError:
            continue
    return times


def _model_file(path: Path) -> ModelFile | None:
    try:
        return ModelFile.of(path)
    except OSError:
        return None
