"""The Tucker form that LoHa and LoKr share."""

import torch
from torch import Tensor


def tucker(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """core [r, s, h, w], left [r, out], right [s, in] -> [out, in, h, w]."""
    return torch.einsum("rs...,ro,si->oi...", core, left, right)
