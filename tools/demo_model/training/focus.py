"""Where errors count more: a face stands by eyes, nose and mouth, small as they are."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tools.demo_model.pictures.dataset import TRAIN, Portrait, Sample, draw_sample
from tools.demo_model.pictures.features import (
    LEFT_EYE,
    MOUTH,
    NOSE,
    RIGHT_EYE,
    eye_distance,
    true_landmarks,
)

_GAINS = {LEFT_EYE: 4.0, RIGHT_EYE: 4.0, NOSE: 1.5, MOUTH: 3.0}
_SPREAD = 0.3  # of the distance of the eyes; glasses lie within
_PIXELS = 8  # of a latent's side


def focus_map(sample: Sample, size: int) -> NDArray[np.float32]:
    """How much each latent of a picture counts [size/8, size/8]; 1 where there is no feature."""
    side = size // _PIXELS
    weights = np.ones((side, side), np.float32)
    if not isinstance(sample, Portrait):
        return weights
    points = true_landmarks(sample.who, sample.view, size)
    spread = _SPREAD * eye_distance(points)
    places = (np.arange(side) + 0.5) * _PIXELS - 0.5
    for landmark, gain in _GAINS.items():
        across, down = (np.exp(-0.5 * ((places - at) / spread) ** 2) for at in points[landmark])
        weights += (gain * np.outer(down, across)).astype(np.float32)
    return weights


def training_focus(pictures: int, size: int) -> Tensor:
    """The maps of the training pictures 0..pictures-1 [pictures, size/8, size/8], in float16."""
    maps = [focus_map(draw_sample(TRAIN, number), size) for number in range(pictures)]
    return torch.from_numpy(np.stack(maps).astype(np.float16))
