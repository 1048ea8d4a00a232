"""Which provider does what: by the files that are there, or as the operator says.

Choosing looks at files alone, so that a status page costs nothing; loading happens at first use,
in whichever process asks. Providers are not re-entrant: a process uses them in one thread.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from sdapi.portrait.faces.files import FOLDER, MESH, SELFIE, SWAPPER_EMBEDDER
from sdapi.settings import SettingsError

if TYPE_CHECKING:
    from sdapi.portrait.faces.face import Detector, Embedder, Landmarks, Matting, Parser, Swapper

Role = Literal["detector", "landmarks", "embedder", "matting", "parser", "swapper"]
ROLES: Final[tuple[Role, ...]] = (
    *("detector", "landmarks", "embedder"),
    *("matting", "parser", "swapper"),
)
AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that could take a role."""

    role: Role
    name: str
    #: patterns below the models folder, the first file that matches is taken; none when built in
    patterns: tuple[str, ...]
    package: str
    licence: str
    #: patterns of another file that it cannot do without
    needs: tuple[str, ...] = ()


_DLIB: Final = "face_recognition_models"
#: in the order of preference
CANDIDATES: Final = (
    Candidate("detector", "scrfd", ("insightface/scrfd_*.onnx", "insightface/det_*.onnx"), "cv2",
              "non-commercial research (InsightFace)"),
    Candidate("detector", "yunet", ("face/face_detection_yunet_*.onnx",), "cv2", "MIT"),
    Candidate("detector", "dlib", (), _DLIB, "BSL-1.0; models CC0"),
    Candidate("landmarks", "mesh", (f"{FOLDER}/{MESH}",), "cv2", "Apache-2.0"),
    Candidate("landmarks", "dlib68", (), _DLIB,
              "public domain; trained on 300-W, which excludes commercial use"),
    Candidate("embedder", "arcface", ("insightface/glintr*.onnx", "insightface/w600k_*.onnx"),
              "cv2", "non-commercial research (InsightFace)"),
    Candidate("embedder", "sface", ("face/face_recognition_sface_*.onnx",), "cv2", "Apache-2.0"),
    Candidate("embedder", "dlib-resnet", (), _DLIB, "CC0"),
    Candidate("matting", "selfie", (f"{FOLDER}/{SELFIE}",), "cv2", "Apache-2.0"),
    Candidate("matting", "grabcut", (), "cv2", "Apache-2.0"),
    Candidate("parser", "bisenet", ("parsing/*.onnx",), "cv2",
              "the file's own; CelebAMask-HQ is non-commercial"),
    Candidate("swapper", "inswapper", ("insightface/inswapper_*.onnx",), "cv2",
              "on request only (InsightFace); older copies non-commercial",
              needs=(f"insightface/{SWAPPER_EMBEDDER}",)),
    Candidate("swapper", "warp", (), "cv2", "Apache-2.0"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider and the file that it will load."""

    candidate: Candidate
    path: Path | None


@dataclass(frozen=True, slots=True)
class Choices:
    """What does each role; a role that nobody can take is left out."""

    by_role: Mapping[Role, Choice]

    @classmethod
    def make(
        cls, models_dir: Path, wanted: Mapping[str, str], setup_dir: Path | None = None
    ) -> "Choices":
        """The first usable candidate of each role, or the one wanted.

        Files of set-up's own folder are taken where `setup_dir` has what `models_dir` lacks. Raises
        SettingsError for a name that is unknown or whose file is missing.
        """
        if unknown := set(wanted) - set(ROLES):
            raise SettingsError(
                f"--portrait-provider: {min(unknown)!r} is no role; there are {', '.join(ROLES)}"
            )
        folders = _Folders(models_dir, setup_dir)
        by_role: dict[Role, Choice] = {}
        for role in ROLES:
            choice = _choose(role, wanted.get(role, AUTO), folders)
            if choice is not None:
                by_role[role] = choice
        return cls(by_role)

    def status(self) -> list[dict[str, Any]]:
        """Every candidate, which are there and which are in use, with licences."""
        return [self._row(candidate) for candidate in CANDIDATES]

    def told(self, wanted: Mapping[str, str]) -> str:
        """What does each role, and which files would bring what is preferred to that."""
        active = ", ".join(
            f"{role} {choice.candidate.name}" for role, choice in self.by_role.items()
        )
        absent = ", ".join(
            f"models/{' or models/'.join(candidate.patterns)} ({role} {candidate.name})"
            for role in ROLES
            if wanted.get(role, AUTO) == AUTO
            for candidate in self._preferred(role)
        )
        told = f"face providers in use: {active}"
        return f"{told}; preferred where there is {absent}" if absent else told

    def _preferred(self, role: Role) -> list[Candidate]:
        """The candidates that come before the active one: their files are not there."""
        active = self.by_role.get(role)
        candidates = [each for each in CANDIDATES if each.role == role]
        return candidates[: None if active is None else candidates.index(active.candidate)]

    def _row(self, candidate: Candidate) -> dict[str, Any]:
        choice = self.by_role.get(candidate.role)
        active = choice if choice is not None and choice.candidate is candidate else None
        return {
            "role": candidate.role,
            "name": candidate.name,
            "active": active is not None,
            "file": active.path.name if active is not None and active.path else None,
            "looks_for": [f"models/{pattern}" for pattern in candidate.patterns],
            "licence": candidate.licence,
        }


class Providers:
    """The chosen providers, each loaded when it is first asked for."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._loaded: dict[Role, Any] = {}
        #: guards `_loaded`
        self._loading = threading.Lock()

    @property
    def detector(self) -> "Detector":
        return self._get("detector")

    @property
    def landmarks(self) -> "Landmarks":
        return self._get("landmarks")

    @property
    def embedder(self) -> "Embedder":
        return self._get("embedder")

    @property
    def matting(self) -> "Matting":
        return self._get("matting")

    @property
    def swapper(self) -> "Swapper":
        return self._get("swapper")

    @property
    def parser(self) -> "Parser | None":
        """None without a parsing network: regions then come from landmarks."""
        return self._get("parser") if "parser" in self._choices.by_role else None

    def _get(self, role: Role) -> Any:
        with self._loading:
            if role not in self._loaded:
                choice = self._choices.by_role.get(role)
                if choice is None:
                    raise RuntimeError(f"no provider for {role}: face_recognition_models is absent")
                self._loaded[role] = _LOADERS[choice.candidate.name](choice.path)
            return self._loaded[role]


@dataclass(frozen=True, slots=True)
class _Folders:
    """Where files are looked for: the models folder, and where set-up put its own."""

    models_dir: Path
    setup_dir: Path | None

    def first_file(self, patterns: tuple[str, ...]) -> Path | None:
        """The first file that is there, in the order of the patterns."""
        for pattern in patterns:
            files = sorted(self.models_dir.glob(pattern))
            if not files and self.setup_dir is not None and pattern.startswith(f"{FOLDER}/"):
                files = sorted(self.setup_dir.glob(pattern))
            if files:
                return files[0]
        return None


def _choose(role: Role, name: str, folders: _Folders) -> Choice | None:
    candidates = [candidate for candidate in CANDIDATES if candidate.role == role]
    if name == AUTO:
        usable = (_usable(candidate, folders) for candidate in candidates)
        return next((choice for choice in usable if choice is not None), None)
    named = next((candidate for candidate in candidates if candidate.name == name), None)
    if named is None:
        valid = ", ".join([AUTO, *(candidate.name for candidate in candidates)])
        raise SettingsError(f"--portrait-provider: {name!r} is no {role}; there are {valid}")
    choice = _usable(named, folders)
    if choice is None:
        looked, needed = (
            " or ".join(str(folders.models_dir / pattern) for pattern in patterns)
            for patterns in (named.patterns, named.needs)
        )
        if needed:
            looked += f", with {needed}"
        missing = f"no file {looked}" if looked else f"the package {named.package} is not installed"
        raise SettingsError(f"--portrait-provider: {role}={name} cannot be used: {missing}")
    return choice


def _usable(candidate: Candidate, folders: _Folders) -> Choice | None:
    if find_spec(candidate.package) is None:
        return None
    if not candidate.patterns:
        return Choice(candidate, None)
    if candidate.needs and folders.first_file(candidate.needs) is None:
        return None
    path = folders.first_file(candidate.patterns)
    return None if path is None else Choice(candidate, path)


def _loader(module: str, name: str, takes_path: bool) -> Callable[[Path | None], Any]:
    """Import a module of this package's parent late: it loads dlib or OpenCV."""

    def load(path: Path | None) -> Any:
        from importlib import import_module

        made = getattr(import_module(f"sdapi.portrait.{module}"), name)
        return getattr(made, "load", made)(path) if takes_path else made()

    return load


_LOADERS: Final[Mapping[str, Callable[[Path | None], Any]]] = {
    "scrfd": _loader("faces.plug_ins.insightface", "ScrfdDetector", takes_path=True),
    "yunet": _loader("faces.plug_ins.opencv_zoo", "YuNetDetector", takes_path=True),
    "dlib": _loader("faces.dlib_faces", "DlibDetector", takes_path=False),
    "mesh": _loader("faces.plug_ins.mediapipe_faces", "MeshLandmarks", takes_path=True),
    "dlib68": _loader("faces.dlib_faces", "DlibLandmarks", takes_path=False),
    "arcface": _loader("faces.plug_ins.insightface", "ArcFaceEmbedder", takes_path=True),
    "sface": _loader("faces.plug_ins.opencv_zoo", "SFaceEmbedder", takes_path=True),
    "dlib-resnet": _loader("faces.dlib_faces", "DlibEmbedder", takes_path=False),
    "selfie": _loader("faces.plug_ins.mediapipe_faces", "SelfieMatting", takes_path=True),
    "grabcut": _loader("faces.grabcut", "GrabCutMatting", takes_path=False),
    "bisenet": _loader("faces.plug_ins.bisenet", "BiSeNetParser", takes_path=True),
    "inswapper": _loader("faces.plug_ins.inswapper", "InSwapper", takes_path=True),
    "warp": _loader("pixels.warp", "WarpSwapper", takes_path=False),
}
