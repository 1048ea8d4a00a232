"""A request's files written to local disk: all of them, or none."""

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiofiles
import aiofiles.os
import anyio.to_thread

from sdapi.services.storage.leftovers import PREFIX, SUFFIX
from sdapi.services.storage.local_disk import storage_errors
from sdapi.services.unbroken import to_its_end

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be: its path below a place, and what makes its bytes, which may take a while."""

    name: str
    make: Callable[[], bytes]


async def write_all_or_none(
    places: Sequence[tuple[Path, NewFile]], shown: str, *, durably: bool
) -> list[int]:
    """Write every file, and give them their names when all are written; returns their sizes.

    `durably` waits until they would survive a power cut. `shown` names the folder in errors.
    Raises `StorageFailed`, with nothing left.
    """
    temporaries: list[Path] = []
    done: list[Path] = []
    sizes: list[int] = []
    try:
        with storage_errors(f"below {shown}"):
            for path, file in places:
                data = await anyio.to_thread.run_sync(file.make)
                await aiofiles.os.makedirs(path.parent, exist_ok=True)
                temporaries.append(path.with_name(f"{PREFIX}{uuid.uuid4().hex}{SUFFIX}"))
                await to_its_end(_write(temporaries[-1], data))
                sizes.append(len(data))
            if durably:
                await _sync_all(temporaries)
            names = [path for path, _ in places]
            await to_its_end(_give_names(temporaries, names, done))
            if durably:
                await anyio.to_thread.run_sync(sync_folders, done)
    except BaseException:  # also when the caller has gone: nobody will ever name these files
        await to_its_end(anyio.to_thread.run_sync(remove_files, (*done, *temporaries)))
        raise
    return sizes


def remove_files(paths: Iterable[Path]) -> None:
    """Delete files as far as they are there and can be deleted; raises nothing. Blocks."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be deleted: %s", path, error.strerror or error)


def sync_folders(paths: Iterable[Path]) -> None:
    """Wait until the names of files would survive a power cut. Raises `OSError`."""
    for folder in {path.parent for path in paths}:
        sync(folder)


def sync(path: Path) -> None:
    """Wait until a file or folder would survive a power cut. Raises `OSError`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


async def _write(path: Path, data: bytes) -> None:
    async with aiofiles.open(path, "wb") as file:
        await file.write(data)


async def _give_names(temporaries: Sequence[Path], names: Sequence[Path], done: list[Path]) -> None:
    """Rename files; `done` are the names that are given by now, whatever happens."""
    for temporary, name in zip(temporaries, names, strict=True):
        await anyio.to_thread.run_sync(temporary.rename, name)
        done.append(name)


async def _sync_all(paths: Sequence[Path]) -> None:
    """`sync` side by side, which lets file systems write several in one go."""
    await asyncio.gather(*(anyio.to_thread.run_sync(sync, path) for path in paths))
