"""Samples by number: what each shows, its picture, its caption; and a cache of pictures on disk."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.demo_model.pictures.captions import caption_portrait, caption_still
from tools.demo_model.pictures.objects import Still, draw_still, render_still
from tools.demo_model.pictures.person import Identity, View, draw_identity, draw_view
from tools.demo_model.pictures.portrait import render_portrait

Picture = NDArray[np.uint8]
PORTRAIT_SHARE = 0.78
TRAIN, UNSEEN = 1, 2  # streams of samples that never meet


@dataclass(frozen=True, slots=True)
class Portrait:
    """One person as seen in one picture."""

    who: Identity
    view: View


Sample = Portrait | Still


def draw_sample(stream: int, index: int) -> Sample:
    """Sample number `index`; the same for every call, size and machine."""
    rng = np.random.default_rng([stream, index])
    if rng.random() < PORTRAIT_SHARE:
        return Portrait(draw_identity(rng), draw_view(rng))
    return draw_still(rng)


def render(sample: Sample, size: int) -> Picture:
    """The picture as [size, size, 3] bytes."""
    if isinstance(sample, Portrait):
        picture = render_portrait(sample.who, sample.view, size)
    else:
        picture = render_still(sample, size)
    return (picture * 255.0 + 0.5).astype(np.uint8)


def caption(sample: Sample, rng: np.random.Generator) -> str:
    """One of many wordings for the sample."""
    if isinstance(sample, Portrait):
        return caption_portrait(sample.who, sample.view, rng)
    return caption_still(sample, rng)


def render_number(stream: int, size: int, index: int) -> Picture:
    """The picture of sample number `index`."""
    return render(draw_sample(stream, index), size)


def cached_pictures(path: Path, stream: int, count: int, size: int, workers: int) -> Picture:
    """Pictures 0..count-1 as a read-only array [count, size, size, 3], rendered once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures = np.empty((count, size, size, 3), np.uint8)
        with ProcessPoolExecutor(workers) as pool:
            numbers = range(count)
            for i, picture in enumerate(
                pool.map(partial(render_number, stream, size), numbers, chunksize=64)
            ):
                pictures[i] = picture
        partial_path = path.with_suffix(".part.npy")
        np.save(partial_path, pictures)
        partial_path.rename(path)
    return np.load(path, mmap_mode="r")
