"""Which checkpoint serves which kind of portrait."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from sdapi.engine.model_file import ModelFile
from sdapi.errors import SDAPIError
from sdapi.portrait.base.native_size import native_side
from sdapi.portrait.base.words import Words
from sdapi.portrait.records import Base
from sdapi.services.catalog.catalog import Catalog, Checkpoint
from sdapi.services.catalog.safetensors_header import read_header
from sdapi.services.server_options import ServerOptions
from sdapi.settings import Settings

#: only SDXL has a second text encoder under this name
_XL_PREFIX: Final = "conditioner.embedders.1."


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A checkpoint for portraits."""

    checkpoint: Checkpoint
    kind: Base
    #: of a square picture, pixels
    native_side: int
    words: Words
    #: CFG scale that suits it, where it says so; None for what is usual
    cfg_scale: float | None = None


class BaseModels:
    """Finds them by the settings, else among what is there."""

    def __init__(self, settings: Settings, catalog: Catalog, options: ServerOptions) -> None:
        self._settings = settings
        self._catalog = catalog
        self._options = options
        #: guards the one below, which holds what a look into a file told
        self._lock = threading.Lock()
        self._kinds: dict[ModelFile, Base] = {}

    def find(self, kind: Base) -> BaseModel | None:
        """The one for a kind: the setting's, else the server's own, else the first that fits."""
        named = {
            "sd15": self._settings.portrait_checkpoint,
            "xl": self._settings.portrait_checkpoint_xl,
        }[kind]
        if named:
            return self._named(named, kind)
        for checkpoint in self._candidates():
            if self.kind_of(checkpoint) == kind:
                return self._made(checkpoint, kind)
        return None

    def anime(self) -> BaseModel | None:
        """The one for illustrations; None unless a setting names it."""
        named = self._settings.portrait_checkpoint_anime
        return self._named(named, "sd15") if named else None

    def kind_of(self, checkpoint: Checkpoint) -> Base:
        """Reads a file's header, once; files without one are told apart by their names."""
        try:
            file = ModelFile.of(checkpoint.path, checkpoint.sidecar)
        except OSError:
            return "sd15"
        with self._lock:
            if file not in self._kinds:
                self._kinds[file] = "xl" if _is_xl(checkpoint.path) else "sd15"
            return self._kinds[file]

    def _candidates(self) -> list[Checkpoint]:
        try:
            configured = self._options.current.text("sd_model_checkpoint")
            first = self._catalog.default_checkpoint(configured)
        except SDAPIError:
            return []
        return [first, *self._catalog.checkpoints]

    def _named(self, name: str, kind: Base) -> BaseModel | None:
        try:
            return self._made(self._catalog.closest_checkpoint(name), kind)
        except SDAPIError:
            return None

    def _made(self, checkpoint: Checkpoint, kind: Base) -> BaseModel:
        own = _own(checkpoint.path)
        side = self._settings.portrait_native_size or native_side(own, checkpoint.sidecar, kind)
        return BaseModel(checkpoint, kind, side, Words.read(own), _cfg_scale(own))


def _cfg_scale(own: Mapping[str, Any]) -> float | None:
    value = own.get("cfg_scale")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_xl(path: Path) -> bool:
    if path.is_dir():
        return (path / "text_encoder_2").is_dir()
    if path.suffix.lower() == ".safetensors":
        return any(key.startswith(_XL_PREFIX) for key in read_header(path))
    return "xl" in path.stem.lower()


def _own(path: Path) -> Mapping[str, Any]:
    """The `portrait` object of the checkpoint's metadata file; empty without one."""
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    own = cast("dict[str, object]", content).get("portrait") if isinstance(content, dict) else None
    return cast("dict[str, Any]", own) if isinstance(own, dict) else {}
