"""What service files say beside their queues: the program's command line and its storage."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sdapi.flags import FLAGS
from sdapi.mount_table import is_on_fuse
from sdapi.object_url import ObjectUrl
from sdapi.queue.config.service_config import ServiceFile, ServiceFileError, read_service_file
from sdapi.queue.config.spec import Program, ServiceSpec
from sdapi.settings import Mount, Settings

#: where the original's image has the webui; relative paths of its command line start there
_IMAGE_ROOT = PurePosixPath("/code/stable-diffusion-webui")
#: this server listens where its own command line says
_NOT_OURS = ("--port", "--listen", "--server-name", "--eas-config", "--service", "--role")
_KNOWN = {flag.name for flag in FLAGS}


@dataclass(frozen=True, slots=True)
class Deployment:
    """All service files of a command line.

    `data_root`, the data directory before any file moves it, holds what is mounted under names that
    this machine does not have. A data directory that a file moves into such a mount lies in it.
    """

    files: tuple[ServiceFile, ...]
    data_root: Path

    @classmethod
    def read(cls, paths: Sequence[Path], data_root: Path) -> "Deployment":
        """Raises `ServiceFileError`."""
        return cls(tuple(read_service_file(path) for path in paths), data_root)

    def arguments(self) -> tuple[list[str], list[str]]:
        """Flags of the programs' own command lines, and warnings of what has no meaning here."""
        arguments: list[str] = []
        warnings: list[str] = []
        for file in self.files:
            warnings += [f"{file.spec.name}: {text}" for text in file.warnings]
            for container in file.spec.containers:
                if container.program is Program.WEBUI and container.script:
                    for flag, *values in _flags_of(container.script):
                        if flag not in _KNOWN:
                            warnings.append(f"{file.spec.name}: {flag} is no flag here")
                        elif flag == "--data-dir" and values:
                            place = _on_this_machine(values[0], file.spec, self.data_root)
                            arguments += [flag, str(place)]
                        elif flag not in _NOT_OURS:
                            arguments += [flag, *values]
        return arguments, warnings

    def add_storage(self, settings: Settings) -> Settings:
        """The settings with the files' mounts."""
        found = [mount for file in self.files for mount in _mounts(file.spec, self.data_root)]
        return replace(settings, mounts=(*settings.mounts, *dict.fromkeys(found)))

    def add_local_storage(self, settings: Settings) -> tuple[Settings, list[str]]:
        """Likewise without keys of the object store, and warnings.

        Its mounts are then folders of this machine, unless they are mounted.
        """
        added = self.add_storage(settings).mounts[len(settings.mounts) :]
        kept = [mount.path for mount in added if mount.oss and not is_on_fuse(mount.path)]
        warnings = [
            f"{path}: what is saved there stays on this machine, for the environment has no "
            "OSS_ACCESS_KEY_ID (docs/storage.md)"
            for path in kept
        ]
        local = [replace(mount, oss=None) if mount.path in kept else mount for mount in added]
        return replace(settings, mounts=(*settings.mounts, *local)), warnings


def _flags_of(script: str) -> list[list[str]]:
    """Each flag of a command line with its values; `--flag=value` is taken apart."""
    try:
        words = shlex.split(script)
    except ValueError as error:
        raise ServiceFileError(f"the script {script!r} cannot be read: {error}") from error
    found: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found.append([name, value] if equals else [name])
        elif found:
            found[-1].append(word)
    return found


def _mounts(spec: ServiceSpec, data_root: Path) -> list[Mount]:
    return [
        Mount(
            Path(storage.mount_path),
            _oss_prefix(storage.target, spec),
            _folder_of(storage.mount_path, data_root),
            storage.is_read_only,
        )
        for storage in spec.storage
    ]


def _oss_prefix(target: str, spec: ServiceSpec) -> str | None:
    if not target.startswith("oss://"):
        return None
    try:
        return str(ObjectUrl.parse(target))
    except ValueError as error:
        raise ServiceFileError(f"{spec.name}: storage: {target!r}: {error}") from error


def _folder_of(mount_path: str, data_root: Path) -> Path | None:
    """Where files of a mount lie that this machine does not have; None when it has it."""
    if Path(mount_path).exists():
        return None
    return data_root / "mounts" / PurePosixPath(mount_path).relative_to("/")


def _on_this_machine(path: str, spec: ServiceSpec, data_root: Path) -> Path:
    """A folder of the original's image, as far as it is mounted; else as it is written."""
    named = _IMAGE_ROOT / path
    for storage in spec.storage:
        if named.is_relative_to(storage.mount_path):
            folder = _folder_of(storage.mount_path, data_root) or Path(storage.mount_path)
            return folder / named.relative_to(storage.mount_path)
    return Path(path)
