"""What each preprocessor does with pixels; imported when the first picture comes."""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from sdapi.engine.control.annotators.annotators import Annotators
from sdapi.engine.control.annotators.detected_map import DetectedMap, Pixels
from sdapi.extensions.controlnet.preprocessors.preprocessor import Values
from sdapi.extensions.controlnet.preprocessors.weightless import edges, tones
from sdapi.extensions.controlnet.preprocessors.weightless.shuffle import shuffle
from sdapi.extensions.controlnet.preprocessors.working_size import at_working_size

#: fills what is masked at the size it was trained at, whatever is asked for
LAMA: Final = "inpaint_only+lama"
_LAMA_SIDE: Final = 256
#: (pixels, the values in force, a seed) -> the map
Work = Callable[[Pixels, Values, int], Pixels]


def _seedless(work: Callable[[Pixels, Values], Pixels]) -> Work:
    return lambda pixels, values, _: work(pixels, values)


_WORKS: Final[dict[str, Work]] = {
    "canny": _seedless(edges.canny),
    "scribble_xdog": _seedless(edges.scribble_xdog),
    "lineart_standard": _seedless(edges.lineart_standard),
    "threshold": _seedless(edges.threshold),
    "invert": _seedless(edges.invert),
    "blur_gaussian": _seedless(tones.blur_gaussian),
    "color": _seedless(tones.color),
    "tile_resample": _seedless(tones.tile_resample),
    "recolor_luminance": _seedless(tones.recolor_luminance),
    "recolor_intensity": _seedless(tones.recolor_intensity),
    "shuffle": lambda pixels, _, seed: shuffle(pixels, seed),
    **dict.fromkeys(
        ("none", "tile_colorfix", "tile_colorfix+sharp", "inpaint", "inpaint_only"),
        _seedless(tones.unchanged),
    ),
}


def work_of(name: str) -> Work:
    """What the weightless preprocessor of a name does."""
    return _WORKS[name]


def annotated(
    annotators: Annotators, name: str, pixels: Pixels, values: Values, seed: int
) -> DetectedMap:
    """The map of a network, which looks at the working size."""
    if name == LAMA:
        return DetectedMap(_filled(annotators, pixels))
    size = at_working_size(pixels, values.resolution)
    found = annotators.detect(name, size.canvas, values.threshold_a, values.threshold_b, seed)
    return DetectedMap(size.cut(found.pixels), found.poses)


def _filled(annotators: Annotators, pixels: Pixels) -> Pixels:
    """A picture [H, W, 4] whose masked part is drawn from what is around it."""
    height, width = pixels.shape[:2]
    size = at_working_size(pixels, _LAMA_SIDE)
    drawn = size.cut(annotators.detect(LAMA, size.canvas, 0.5, 0.5).pixels)[:, :, :3]
    share = pixels[:, :, 3:].astype(np.float32) / 255
    picture = pixels[:, :, :3] * (1 - share) + cv2.resize(drawn, (width, height)) * share
    return np.concatenate([picture.astype(np.uint8), pixels[:, :, 3:]], axis=2)
