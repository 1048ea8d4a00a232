"""Renderings on disk, in shards, so that training may begin while most are still to come.

python -m tools.demo_model.pictures.cache --folder RUN --size 256 --pictures 16000 --workers 16
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from tools.demo_model.pictures.dataset import TRAIN, UNSEEN, Picture, render_number

SHARD = 64
_WAIT_S = 900.0
_STREAMS = {TRAIN: "train", UNSEEN: "unseen"}


def cached_pictures(folder: Path, stream: int, count: int, size: int, workers: int) -> Picture:
    """Pictures 0..count-1 [count, size, size, 3], in memory.

    Those that are not there are rendered by `workers` processes; with none, another program
    renders them, and this one waits. Raises TimeoutError when that takes over a quarter of an hour.
    """
    paths = _shards(folder, stream, count, size)
    if workers:
        render_shards(paths, stream, size, workers)
    given_up = time.monotonic() + _WAIT_S
    while not all(path.exists() for path in paths):
        if time.monotonic() > given_up:
            raise TimeoutError(f"nobody rendered {paths[-1]}")
        time.sleep(0.5)
    pictures = np.empty((count, size, size, 3), np.uint8)
    for number, path in enumerate(paths):
        part = pictures[number * SHARD : (number + 1) * SHARD]
        part[:] = np.load(path, mmap_mode="r")[: len(part)]
    return pictures


def render_shards(paths: list[Path], stream: int, size: int, workers: int) -> None:
    """Render the shards that are not there, the first ones first."""
    missing = [(number, path) for number, path in enumerate(paths) if not path.exists()]
    if not missing:
        return
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(partial(_render_shard, stream, size), missing))


def _render_shard(stream: int, size: int, shard: tuple[int, Path]) -> None:
    number, path = shard
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(number * SHARD, (number + 1) * SHARD)
    draft = path.with_suffix(".draft.npy")
    np.save(draft, np.stack([render_number(stream, size, n) for n in numbers]))
    draft.replace(path)


def _shards(folder: Path, stream: int, count: int, size: int) -> list[Path]:
    place = folder / f"{_STREAMS[stream]}_{size}"
    return [place / f"{number:05d}.npy" for number in range(-(-count // SHARD))]


def main() -> None:
    """Render the pictures of a run ahead of its stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo_train"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--pictures", type=int, default=16000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for stream, count in ((UNSEEN, SHARD), (TRAIN, arguments.pictures)):
        paths = _shards(arguments.folder, stream, count, arguments.size)
        render_shards(paths, stream, arguments.size, arguments.workers)


if __name__ == "__main__":
    main()
