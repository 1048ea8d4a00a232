"""The control models on disk, and which one a name means (contract: controlnet-api 2.1)."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import BadRequest, UnknownName, near_names
from sdapi.options import Options
from sdapi.services.catalog.catalog import DEMO_CHECKPOINT, Catalog
from sdapi.services.catalog.model_files.finding import find_files
from sdapi.services.catalog.model_files.safetensors_header import read_header
from sdapi.settings import Settings

NONE: Final = "None"
_SUFFIXES: Final = {".pt", ".pth", ".ckpt", ".safetensors", ".bin"}
_HASH_OFFSET, _HASH_BYTES = 0x100000, 0x10000
_BRACKET: Final = re.compile(r"\s*\[[^\]]*\]\s*$")
_DEMO_PREFIX: Final = "control_model."


@dataclass(frozen=True, slots=True)
class ControlModel:
    """A file under the names that clients use for it."""

    path: Path
    hash8: str

    @property
    def base_name(self) -> str:
        return self.path.stem

    @property
    def name(self) -> str:
        """As it is listed."""
        return f"{self.base_name} [{self.hash8}]"

    @property
    def file(self) -> ModelFile:
        """For the engine; raises `ModelUnusable` that says why it cannot be described."""
        return ModelFile.usable(self.path)


@dataclass(frozen=True, slots=True)
class ControlModels:
    """The model folders, read at every question: files come and go while the server runs."""

    settings: Settings
    catalog: Catalog

    def all(self, options: Options) -> list[ControlModel]:
        """The models by name without letter case; of equal names the first found."""
        found: dict[str, ControlModel] = {}
        for path in self._paths(options):
            hash8 = _legacy_hash(path)
            if hash8 is not None:
                model = ControlModel(path, hash8)
                found.setdefault(model.name, model)
        return sorted(found.values(), key=lambda model: model.name.lower())

    def find(self, name: str, options: Options) -> ControlModel:
        """The model of a name, a base name, or the shortest that holds it.

        A wrong hash does not matter. Raises `BadRequest` for none, `UnknownName` with near names.
        """
        if name.strip().lower() in ("", "none"):
            raise BadRequest("You have not selected any ControlNet Model.")
        models = self.all(options)
        for model in models:
            if name == model.name:
                return model
        for text in dict.fromkeys((name.lower(), _BRACKET.sub("", name.lower()))):
            same = [model for model in models if model.base_name.lower() == text]
            holding = [model for model in models if text and text in model.base_name.lower()]
            if same or holding:
                return min(same or holding, key=lambda model: len(model.base_name))
        names = near_names(name, [model.name for model in models])
        folder = self.settings.controlnet_dirs[0]
        raise UnknownName(f"model not found: {name}; there are {names} (put files into {folder})")

    def _paths(self, options: Options) -> Iterator[Path]:
        folders = list(self.settings.controlnet_dirs)
        if extra := options.text("control_net_models_path"):
            folders.append(self.settings.below_data(extra))
        annotators = self.settings.controlnet_annotators_dir
        for folder in folders:
            for path in find_files(folder, _SUFFIXES):
                if not path.is_relative_to(annotators):
                    yield path
        if any(each.path == DEMO_CHECKPOINT for each in self.catalog.checkpoints):
            yield from _demo_models()


def _legacy_hash(path: Path) -> str | None:
    """The webui's old hash; None for a file that is gone or cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(_HASH_OFFSET)
            return hashlib.sha256(file.read(_HASH_BYTES)).hexdigest()[:8]
    except OSError:
        return None


def _demo_models() -> Iterator[Path]:
    """The ControlNets that ship with the demo checkpoint, for which alone they are made."""
    for path in find_files(DEMO_CHECKPOINT.parent, {".safetensors"}):
        header = read_header(path)
        if any(key.startswith(_DEMO_PREFIX) for key in header or ()):
            yield path
