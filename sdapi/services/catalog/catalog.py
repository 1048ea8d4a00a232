"""The checkpoints and VAEs on disk, and which one a name means (contract: webui-generation 13)."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sdapi.errors import NoCheckpoint, UnknownName, near_names
from sdapi.object_url import is_object_url
from sdapi.services.catalog.model_files.finding import find_files, natural_key
from sdapi.services.catalog.model_files.hashes import HASH_WAIT_S, HashCache
from sdapi.services.catalog.object_models import FetchedModels
from sdapi.settings import Settings

log = logging.getLogger(__name__)

_CHECKPOINT_SUFFIXES = {".ckpt", ".safetensors"}
_VAE_SUFFIXES = {".ckpt", ".pt", ".safetensors"}
_LEGACY_OFFSET, _LEGACY_BYTES = 0x100000, 0x10000
_SHORT = 10
_HASH_SUFFIX = re.compile(r"\s*\[[^]]*\]\s*$")
DEMO_CHECKPOINT = Path(__file__).parents[2] / "demo" / "sdapi-demo.safetensors"
AUTOMATIC, NONE = "Automatic", "None"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint file or diffusers folder, under all the names clients use for it."""

    path: Path
    #: path below its models folder, with suffix
    name: str
    sidecar: Path | None
    sha256: str | None

    @property
    def name_for_extra(self) -> str:
        """File name without folders and suffix; what infotext calls `Model`."""
        return _stem(Path(self.name).name)

    @property
    def model_name(self) -> str:
        """Its name without suffix, folders joined by underscores."""
        return _stem(self.name.replace("/", "_").replace("\\", "_"))

    @property
    def shorthash(self) -> str | None:
        """The first ten digits of its sha256; None until that is known."""
        return self.sha256[:_SHORT] if self.sha256 else None

    @property
    def title(self) -> str:
        """Name and short hash, as listings and options show it."""
        return f"{self.name} [{self.shorthash}]" if self.sha256 else self.name

    @property
    def short_title(self) -> str:
        """The same without folders and suffix."""
        return f"{self.name_for_extra} [{self.shorthash}]" if self.sha256 else self.name_for_extra

    @property
    def aliases(self) -> tuple[str, ...]:
        """Every exact name but the legacy hash, which takes a read of the file."""
        names = [self.model_name, self.title, self.name, self.name_for_extra]
        if self.sha256:
            short = self.sha256[:_SHORT]
            names += [short, self.sha256, self.short_title]
        return tuple(names)


@dataclass(frozen=True, slots=True)
class VAEFile:
    """A VAE in a file of its own, known by its file name."""

    name: str
    path: Path


class Catalog:
    """What is on disk. `refresh` looks again; hashes appear as they become known."""

    def __init__(self, settings: Settings, hashes: HashCache) -> None:
        self._settings = settings
        self._hashes = hashes
        self._found: list[tuple[Path, str, Path | None]] = []
        self._vaes: dict[str, VAEFile] = {}
        self.refresh()

    def refresh(self) -> None:
        """Scan the model folders."""
        found = [
            (path, path.relative_to(folder).as_posix(), _sidecar(path))
            for folder in self._settings.checkpoint_dirs
            for path in _checkpoint_paths(folder)
        ]
        if (
            self._settings.ckpt
            and (path := self._settings.below_data(self._settings.ckpt)).is_file()
        ):
            known = {entry[0].resolve() for entry in found}
            if path.resolve() not in known:
                found.insert(0, (path, path.name, _sidecar(path)))
        self._found = found
        self._vaes = {path.name: VAEFile(path.name, path) for path in self._vae_paths()}

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """In the order of the listing; the demo checkpoint when there is no other."""
        return [
            Checkpoint(path, name, sidecar, self._hashes.get(path))
            for path, name, sidecar in self._listed
        ]

    @property
    def checkpoint_paths(self) -> list[Path]:
        """The same without a look at the files."""
        return [path for path, _, _ in self._listed]

    @property
    def _listed(self) -> list[tuple[Path, str, Path | None]]:
        if not self._found and DEMO_CHECKPOINT.is_file():
            return [(DEMO_CHECKPOINT, DEMO_CHECKPOINT.name, _sidecar(DEMO_CHECKPOINT))]
        return self._found

    @property
    def vaes(self) -> list[VAEFile]:
        """The VAEs, by their file names."""
        return sorted(self._vaes.values(), key=lambda vae: vae.name.lower())

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint of an exact alias; raises `UnknownName` with the near titles."""
        checkpoints = self.checkpoints
        # Of equal aliases the later file's wins.
        for checkpoint in reversed(checkpoints):
            if name in checkpoint.aliases:
                return checkpoint
        if re.fullmatch(r".*\b[0-9a-f]{8}\]?", name):
            for checkpoint in reversed(checkpoints):
                legacy = _legacy_hash(checkpoint.path)
                if name in (legacy, f"{checkpoint.name} [{legacy}]"):
                    return checkpoint
        titles = [c.title for c in checkpoints]
        raise UnknownName(f"model '{name}' not found; there are {near_names(name, titles)}")

    def named(
        self, name: str, objects: FetchedModels, *, field: str = "sd_model_checkpoint"
    ) -> Checkpoint:
        """The checkpoint that a request names: an exact alias, or an object's URL.

        Raises `UnknownName`, or what `FetchedModels.file` does.
        """
        if not is_object_url(name):
            return self.checkpoint(name)
        path = objects.file(name, field=field)
        return Checkpoint(path, path.name, _sidecar(path), self._hashes.get(path))

    def closest_checkpoint(self, text: str) -> Checkpoint:
        """As `checkpoint`, else the shortest title that holds the text, its hash counted or not."""
        try:
            return self.checkpoint(text)
        except UnknownName:
            for part in (text, _HASH_SUFFIX.sub("", text)):
                holding = [c for c in self.checkpoints if part and part in c.title]
                if holding:
                    return min(holding, key=lambda c: len(c.title))
            raise

    async def hashed(self, checkpoint: Checkpoint) -> Checkpoint:
        """A checkpoint with its hash, if that is known within `HASH_WAIT_S`."""
        if self._settings.no_hashing or checkpoint.sha256:
            return checkpoint
        return replace(checkpoint, sha256=await self._hashes.wait(checkpoint.path, HASH_WAIT_S))

    def default_checkpoint(self, configured: str) -> Checkpoint:
        """`--ckpt`, the configured one, or the first; raises `NoCheckpoint` when there is none."""
        checkpoints = self.checkpoints
        if not checkpoints:
            raise NoCheckpoint(no_checkpoint(self._settings.checkpoint_dirs[0]))
        for name in (configured, self._settings.ckpt and Path(self._settings.ckpt).name):
            if name:
                try:
                    return self.closest_checkpoint(name)
                except UnknownName:
                    log.warning("checkpoint %r is not there; using another", name)
        return checkpoints[0]

    def has_vae(self, option: str) -> bool:
        """Whether a value of option `sd_vae` means something here."""
        return option in (AUTOMATIC, NONE) or option in self._vaes

    def vae_for(
        self,
        checkpoint: Checkpoint,
        option: str,
        objects: FetchedModels | None = None,
        *,
        overrides: bool,
    ) -> VAEFile | None:
        """The VAE a checkpoint is drawn with, None for its own (contract: 13.2).

        `option` is `sd_vae`, `overrides` is `sd_vae_overrides_per_model_preferences`. Raises
        `UnknownName`, or what `FetchedModels.file` does.
        """
        if (path := self._settings.vae_path) is not None:
            return VAEFile(path.name, path)
        if objects is not None and is_object_url(option):
            path = objects.file(option, field="sd_vae")
            return VAEFile(path.name, path)
        if not self.has_vae(option):
            names = [AUTOMATIC, NONE, *self._vaes]
            raise UnknownName(f"VAE '{option}' not found; there are {near_names(option, names)}")
        if option != AUTOMATIC and overrides:
            return self._vaes.get(option)
        preferred = _preferred_vae(checkpoint.path)
        if preferred == NONE:
            return None
        if preferred in self._vaes:
            return self._vaes[preferred]
        beside = [v for v in self._vaes.values() if v.name.startswith(_stem(checkpoint.path.name))]
        return beside[0] if beside else self._vaes.get(option)

    def _vae_paths(self) -> Iterator[Path]:
        for folder in self._settings.checkpoint_dirs:
            yield from (p for p in find_files(folder, _VAE_SUFFIXES) if ".vae." in p.name)
        for folder in self._settings.vae_dirs:
            yield from find_files(folder, _VAE_SUFFIXES)


def no_checkpoint(folder: Path) -> str:
    """What to do where there is nothing to draw with."""
    return (
        "no checkpoint to draw with: put a .safetensors or .ckpt file into "
        f"{folder} and POST /sdapi/v1/refresh-checkpoints"
    )


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if Path(name).suffix in _CHECKPOINT_SUFFIXES else name


def _checkpoint_paths(folder: Path) -> list[Path]:
    files = [p for p in find_files(folder, _CHECKPOINT_SUFFIXES) if ".vae." not in p.name]
    folders = [p.parent for p in folder.rglob("model_index.json")] if folder.is_dir() else []
    inside = [p for p in files if not any(p.is_relative_to(f) for f in folders)]
    return sorted(
        [*inside, *folders], key=lambda path: natural_key(path.relative_to(folder).as_posix())
    )


def _sidecar(path: Path) -> Path | None:
    if path.is_dir():
        return None
    sidecar = path.with_suffix(".yaml")
    return sidecar if sidecar.is_file() else None


def _legacy_hash(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            file.seek(_LEGACY_OFFSET)
            return hashlib.sha256(file.read(_LEGACY_BYTES)).hexdigest()[:8]
    except OSError:
        return None


def _preferred_vae(checkpoint: Path) -> str | None:
    """The `vae` of the user metadata beside a checkpoint."""
    try:
        content = json.loads(checkpoint.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    value = content.get("vae") if isinstance(content, dict) else None
    return value if isinstance(value, str) else None
