"""How often each picture is shown: what is hard to draw comes more often than it was rendered."""

import torch
from torch import Tensor

from tools.demo_model.pictures.dataset import TRAIN, Portrait, Sample, draw_sample

# Rims are thin and rare, and dark skin has little contrast: their errors weigh little in a loss.
_GLASSES, _DARK_SKIN, _BEARD = 3.0, 4.0, 1.3
_STILL = 0.8  # flat colours are learned first


def emphasis(sample: Sample) -> float:
    """How often a sample is shown, relative to a plain face."""
    if not isinstance(sample, Portrait):
        return _STILL
    weight = 1.0
    if sample.who.has_glasses:
        weight *= _GLASSES
    if sample.who.skin_name == "dark":
        weight *= _DARK_SKIN
    if sample.who.has_beard:
        weight *= _BEARD
    return weight


def training_emphasis(pictures: int) -> Tensor:
    """The emphasis of the training pictures 0..pictures-1, in float32."""
    return torch.tensor([emphasis(draw_sample(TRAIN, number)) for number in range(pictures)])
