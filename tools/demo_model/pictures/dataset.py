"""Samples by number: what each shows, its picture, its caption."""

from dataclasses import dataclass

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
