"""Which folders a caller may name."""

import os
from pathlib import Path, PurePosixPath

from sdapi.errors import BadRequest, PathNotAllowed
from sdapi.settings import Settings

#: of Linux file systems, less the room for the folders and file names that are added below
MAX_PATH_BYTES = 3800
MAX_NAME_BYTES = 255


def resolve_save_dir(path: str, settings: Settings, *, field: str = "save_dir") -> Path:
    """The real folder that a request's `path` names, which lies below an allowed root.

    Relative paths start at the data directory. Symbolic links are followed before the check, so
    write to what this returns; the client gets its own spelling back. The folder need not exist.
    `field` is what the path came from, for the messages. Raises `PathNotAllowed`, `BadRequest`.
    """
    shown = f"{field} {_shown(path)}"
    named = _checked_spelling(path, shown, field)
    try:
        resolved = settings.on_disk(settings.data_dir / named).resolve()
        roots = [root.resolve() for root in settings.allowed_roots]
    except (OSError, RuntimeError) as error:  # a loop of links
        raise BadRequest(f"{shown} cannot be resolved") from error
    above = [root for root in roots if resolved.is_relative_to(root)]
    if not above:
        allowed = ", ".join(dict.fromkeys(str(root) for root in settings.allowed_roots))
        raise PathNotAllowed(
            f"{shown} is outside the folders this server may write to: {allowed} "
            "(--allow-save-dir and --mount add others)"
        )
    _refuse_read_only(resolved, settings, shown)
    _refuse_own_files(resolved, above, settings, shown)
    _refuse_below_file(resolved, shown)
    return resolved


def _refuse_read_only(resolved: Path, settings: Settings, shown: str) -> None:
    """Refuse what lies on a read-only mount; the innermost mount decides."""
    places = [(mount.on_disk.resolve(), mount) for mount in settings.mounts]
    above = [(place, mount) for place, mount in places if resolved.is_relative_to(place)]
    innermost = max((len(place.parts) for place, _ in above), default=0)
    for place, mount in above:
        if len(place.parts) == innermost and mount.is_read_only:
            raise PathNotAllowed(
                f"{shown} is on the mount {mount.path}, which is read-only: "
                "the service file's storage says readOnly"
            )


def _refuse_own_files(resolved: Path, roots: list[Path], settings: Settings, shown: str) -> None:
    """Refuse what the server keeps for itself, unless a root of its own lies within that."""
    for kept in settings.own_places:
        place = kept.resolve()
        if resolved.is_relative_to(place) and not any(r.is_relative_to(place) for r in roots):
            raise PathNotAllowed(f"{shown} is no place for results: {kept} is the server's own")
    hidden = [any(p.startswith(".") for p in resolved.relative_to(root).parts) for root in roots]
    if all(hidden):
        raise PathNotAllowed(f"{shown} is no place for results: its name starts with a dot")


def _refuse_below_file(resolved: Path, shown: str) -> None:
    """Refuse a file, and what cannot be made because a file is in its way."""
    for place in (resolved, *resolved.parents):
        if os.path.lexists(place):
            if not os.path.isdir(place):
                raise BadRequest(f"{shown} cannot be a folder: {place} is a file")
            return


def _checked_spelling(path: str, shown: str, field: str) -> PurePosixPath:
    if not path.strip():
        raise BadRequest(f"{field} is empty")
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise BadRequest(f"{shown} holds a control character")
    if "," in path:
        raise BadRequest(f"{shown} holds a comma; paths are answered as a comma list")
    if "://" in path:
        raise BadRequest(f"{shown} is a URL, not a folder")
    try:
        encoded = path.encode()
    except UnicodeEncodeError as error:  # lone surrogates, which JSON can spell
        raise BadRequest(f"{shown} is not valid Unicode") from error
    if len(encoded) > MAX_PATH_BYTES or max(map(len, encoded.split(b"/"))) > MAX_NAME_BYTES:
        raise BadRequest(f"{shown} is longer than file systems allow")
    named = PurePosixPath(path)
    if ".." in named.parts:
        raise PathNotAllowed(f"{shown} must not contain '..'")
    return named


def _shown(path: str, limit: int = 200) -> str:
    return ascii(path if len(path) <= limit else path[:limit] + "…")
