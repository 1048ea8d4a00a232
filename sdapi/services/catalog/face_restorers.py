"""The face restorers, and whether their files are there (contract: webui-generation 12)."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sdapi.engine.faces.restorer import CODEFORMER, GFPGAN, FaceModels, FaceRestoration
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import UnknownName, near_names
from sdapi.settings import Settings

#: In the webui's order; the first is the one that options choose by themselves.
FACE_RESTORERS = (CODEFORMER, GFPGAN)
_DETECTOR, _PARSER = "detection_Resnet50_Final.pth", "parsing_parsenet.pth"
_FOLDERS = {CODEFORMER: "Codeformer", GFPGAN: "GFPGAN"}
_SUFFIXES = {".pth", ".safetensors"}
#: CodeFormer's network, in a package of its own because its licence forbids commercial use
_CODEFORMER_PACKAGE = "spandrel_extra_arches"


@dataclass(frozen=True, slots=True)
class FaceRestorers:
    """The folders of the restorers, read at every question."""

    settings: Settings

    def find(self, name: str, *, visibility: float = 1.0, weight: float = 0.5) -> FaceRestoration:
        """The restorer of a name, with its files or the reason why it cannot work.

        "" is the first one. Raises `UnknownName`.
        """
        name = name or FACE_RESTORERS[0]
        if name not in FACE_RESTORERS:
            near = near_names(name, FACE_RESTORERS)
            raise UnknownName(f"face restorer {name!r} not found; there are {near}")
        if name == CODEFORMER and find_spec(_CODEFORMER_PACKAGE) is None:
            package = _CODEFORMER_PACKAGE.replace("_", "-")
            missing = f"{name}: the package {package} is not installed; faces stay as they are"
            return FaceRestoration(name, None, missing, visibility, weight)
        restorer = next(self._files(_FOLDERS[name], name), None)
        files = restorer, self._tool(_DETECTOR), self._tool(_PARSER)
        found = [ModelFile.usable(file) for file in files if file is not None]
        if len(found) == len(files):
            return FaceRestoration(name, FaceModels(*found), "", visibility, weight)
        wanted = (f"a {name} model", _DETECTOR, _PARSER)
        lacks = " and ".join(w for w, file in zip(wanted, files, strict=True) if file is None)
        folder = self.settings.auxiliary_dirs[_FOLDERS[name]]
        missing = f"{name}: {folder} lacks {lacks}; faces stay as they are"
        return FaceRestoration(name, None, missing, visibility, weight)

    def _files(self, folder: str, part: str) -> Iterator[Path]:
        """The model files of a folder whose names hold a text."""
        path = self.settings.auxiliary_dirs[folder]
        for file in sorted(path.glob("*")) if path.is_dir() else ():
            if file.suffix.lower() in _SUFFIXES and part.lower() in file.name.lower():
                yield file

    def _tool(self, name: str) -> Path | None:
        """A file that both restorers use, from the folder of either."""
        folders = [self.settings.auxiliary_dirs[folder] for folder in _FOLDERS.values()]
        return next((f / name for f in folders if (f / name).is_file()), None)
