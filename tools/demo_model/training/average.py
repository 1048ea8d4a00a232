"""A running average of weights, which draws better than the weights themselves."""

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move the running average towards the model, faster at the beginning."""
    keep = min(decay, (1.0 + step) / (10.0 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - keep)
