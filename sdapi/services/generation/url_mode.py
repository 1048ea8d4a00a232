"""URL mode: a request's pictures as files under its `save_dir`, all or none (design section 4)."""

import datetime
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sdapi.errors import NotBuilt, StorageFailed
from sdapi.images import encode_png
from sdapi.security import resolve_save_dir
from sdapi.settings import Settings


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A picture and its place: `<save_dir>/<folder>/<date>/<stem>.png`."""

    folder: str
    stem: str
    image: Image.Image
    infotext: str


@dataclass(frozen=True, slots=True)
class SaveDir:
    """Where a request's files go: as the client spelled it, and where that is on disk."""

    spelled: str
    path: Path


def open_save_dir(save_dir: str, settings: Settings) -> SaveDir:
    """Check a `save_dir` before any work is done; nothing is created yet.

    Raises `PathNotAllowed` or `BadRequest`, and `NotBuilt` where files would have to be uploaded.
    """
    if save_dir.startswith("oss://"):
        raise NotBuilt("alwayson_scripts.save_dir: uploads to object storage are not available yet")
    path = resolve_save_dir(save_dir, settings)
    for mount in settings.mounts:
        if mount.oss and path.is_relative_to(mount.on_disk.resolve()) and not mount.path.is_mount():
            raise NotBuilt(
                f"alwayson_scripts.save_dir: {mount.path} is not mounted, "
                "and uploads are not available yet"
            )
    spelled = save_dir if os.path.isabs(save_dir) else str(settings.data_dir / save_dir)
    return SaveDir(spelled.rstrip("/") or "/", path)


def grid_stem() -> str:
    """`grid-<uuid4>`, the name of a request's grid."""
    return f"grid-{uuid.uuid4()}"


def image_stem(seed: int) -> str:
    """`<uuid4>-<seed>`, the name of a picture."""
    return f"{uuid.uuid4()}-{seed}"


def write_all(save_dir: SaveDir, images: Sequence[NamedImage]) -> list[str]:
    """Write every picture; return their paths in the client's spelling.

    Files get their names only when all are written. Raises `StorageFailed`, with nothing left.
    """
    date = datetime.date.today().isoformat()
    written: list[tuple[Path, Path]] = []
    done: list[Path] = []
    try:
        for each in images:
            folder = save_dir.path / each.folder / date
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f".{each.stem}.{os.getpid()}.tmp"
            written.append((temporary, folder / f"{each.stem}.png"))
            temporary.write_bytes(encode_png(each.image, {"parameters": each.infotext}))
        for temporary, final in written:
            temporary.rename(final)
            done.append(final)
    except OSError as error:
        for path in (*done, *(temporary for temporary, _ in written)):
            path.unlink(missing_ok=True)
        raise StorageFailed(f"cannot write below {save_dir.spelled}: {error.strerror}") from error
    return [f"{save_dir.spelled}/{each.folder}/{date}/{each.stem}.png" for each in images]


def answer(
    *,
    id_task: str | None,
    status: int = 0,
    paths: Sequence[str] = (),
    seeds: Sequence[int] = (),
    error: str = "",
    total_time_s: float = 0.0,
) -> dict[str, object]:
    """The body of URL mode, for success (status 0) and failure (the HTTP status) alike."""
    return {
        "images": [],
        "parameters": {
            "id_task": id_task,
            "status": status,
            "image_url": ",".join(paths),
            "seed": ",".join(str(seed) for seed in seeds),
            "error_msg": error,
            "total_time": total_time_s,
        },
        "info": "",
    }
