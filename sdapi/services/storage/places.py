"""Which folder, and which prefix of an object store, a request's `save_dir` or URL means.

A caller reaches only what lies below a `--mount` or an `--allow-oss`: other buckets are the
server's keys' business.
"""

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sdapi.errors import BadRequest, PathNotAllowed
from sdapi.mount_table import is_on_fuse
from sdapi.object_url import MAX_KEY_BYTES, ObjectUrl, is_object_url
from sdapi.security import resolve_save_dir
from sdapi.settings import Mount, Settings

#: for the folders and the name that are put below a save_dir
_ROOM_BYTES = 123


@dataclass(frozen=True, slots=True)
class Place:
    """Where files go: as the caller spelled it, the folder on disk, and the prefix it stands for.

    `folder` is None where files only pass through on their way to the store.
    """

    spelled: str
    folder: Path | None
    remote: ObjectUrl | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """The mounts and allowed prefixes of one server."""

    settings: Settings
    is_on_fuse: Callable[[Path], bool] = is_on_fuse

    def of_save_dir(self, save_dir: str, *, field: str = "save_dir") -> Place:
        """Where a request's files go. Raises `PathNotAllowed` or `BadRequest`; creates nothing."""
        if is_object_url(save_dir):
            return self._of_url(save_dir, field)
        folder = resolve_save_dir(save_dir, self.settings, field=field)
        spelled = str(self.settings.data_dir / save_dir) if save_dir[0] != "/" else save_dir
        remote = self._remote(folder, PurePosixPath(spelled))
        if remote is not None:
            _check_key_length(remote, save_dir, field)
            spelled = posixpath.normpath(spelled)  # clients make keys of it
        return Place(spelled.rstrip("/") or "/", folder, remote)

    def remote_of(self, path: Path) -> ObjectUrl | None:
        """The object that a file stands for; None where files stay on disk."""
        return self._remote(path, PurePosixPath(path))

    def allowed(self, url: str, *, field: str) -> tuple[ObjectUrl, Mount | None]:
        """Read a caller's URL, with the mount it is below; raises for others' prefixes."""
        try:
            found = ObjectUrl.parse(url)
        except ValueError as error:
            raise BadRequest(f"{field} {_shown(url)}: {error}") from error
        mounts = [(ObjectUrl.parse(m.oss), m) for m in self.settings.mounts if m.oss]
        above = [(prefix, mount) for prefix, mount in mounts if found.is_below(prefix)]
        if above:
            return found, max(above, key=lambda each: len(each[0].key))[1]
        prefixes = [ObjectUrl.parse(prefix) for prefix in self.settings.allow_oss]
        if not any(found.is_below(prefix) for prefix in prefixes):
            known = [str(prefix) for prefix in (*(prefix for prefix, _ in mounts), *prefixes)]
            raise PathNotAllowed(
                f"{field} {_shown(url)} is outside the prefixes this server may use: "
                f"{', '.join(known) or 'none'} (--allow-oss and --mount add others)"
            )
        return found, None

    def uploads(self, mount: Mount) -> bool:
        """Whether files below a mount are uploaded by us."""
        return mount.oss is not None and not self.is_on_fuse(mount.on_disk)

    def _of_url(self, save_dir: str, field: str) -> Place:
        url, mount = self.allowed(save_dir, field=field)
        if "," in url.key:
            raise BadRequest(f"{field} {_shown(save_dir)} holds a comma; paths are a comma list")
        _check_key_length(url, save_dir, field)
        if mount is None or mount.oss is None:
            return Place(str(url), None, url)
        below = mount.path / url.relative_to(ObjectUrl.parse(mount.oss))
        folder = resolve_save_dir(str(below), self.settings, field=field)
        return Place(str(url), folder, url if self.uploads(mount) else None)

    def _remote(self, folder: Path, spelled: PurePosixPath) -> ObjectUrl | None:
        found: tuple[int, ObjectUrl] | None = None
        for mount in self.settings.mounts:
            if mount.oss is None:
                continue
            on_disk = mount.on_disk.resolve()
            if not folder.is_relative_to(on_disk) or not self.uploads(mount):
                continue
            # Clients replace the mount's path in what they are told, so that spelling decides.
            named = spelled.is_relative_to(mount.path)
            rest = spelled.relative_to(mount.path) if named else folder.relative_to(on_disk)
            url = ObjectUrl.parse(mount.oss).below("" if str(rest) == "." else rest.as_posix())
            if found is None or len(on_disk.parts) > found[0]:
                found = (len(on_disk.parts), url)
        return found[1] if found else None


def _check_key_length(prefix: ObjectUrl, save_dir: str, field: str) -> None:
    """Refuse a prefix below which no object could be named."""
    try:
        ObjectUrl.parse(str(prefix))
    except ValueError as error:
        raise BadRequest(f"{field} {_shown(save_dir)}: as an object, {error}") from error
    if len(prefix.key.encode()) > MAX_KEY_BYTES - _ROOM_BYTES:
        raise BadRequest(f"{field} {_shown(save_dir)} leaves no room for names in a key")


def with_named_mounts(settings: Settings) -> Settings:
    """Give a mount that this machine does not have a folder: its path is only a name (11.1)."""
    mounts = tuple(
        replace(mount, folder=named_folder(mount.path, settings.data_dir))
        if mount.oss and mount.folder is None and not mount.path.exists()
        else mount
        for mount in settings.mounts
    )
    return replace(settings, mounts=mounts)


def named_folder(path: Path, data_dir: Path) -> Path:
    """Where the files of a mount lie whose path is only a name."""
    return data_dir / "mounts" / PurePosixPath(path).relative_to("/")


def _shown(text: str, limit: int = 200) -> str:
    return ascii(text if len(text) <= limit else text[:limit] + "…")
