"""LoKr: the Kronecker product of a small and a large matrix (KronA, Edalati et al. 2022)."""

import torch
from torch import Tensor

from sdapi.engine.networks.kinds.tucker import tucker
from sdapi.engine.networks.layer import Change, Parts


def lokr(parts: Parts, weight: Tensor, dyn: int | None) -> Change:
    """`kron(w1, w2)`; either may be a product of two, in Tucker form where it has a core.

    Without a product there is no rank, and `alpha` does not count. Computed in the file's own type,
    as recorded pictures tell.
    """
    first, second = _factor(parts, 1), _factor(parts, 2)
    if second.ndim > first.ndim:
        first = first.reshape(*first.shape, *[1] * (second.ndim - first.ndim))
    ranks = [parts[name].shape[0] for name in ("lokr_w1_b", "lokr_w2_b") if name in parts]
    return Change(torch.kron(first, second.contiguous()), rank=ranks[-1] if ranks else None)


def _factor(parts: Parts, number: int) -> Tensor:
    if (whole := parts.get(f"lokr_w{number}")) is not None:
        return whole
    left, right = parts[f"lokr_w{number}_a"], parts[f"lokr_w{number}_b"]
    core = parts.get(f"lokr_t{number}")
    return left @ right if core is None else tucker(core, left, right)
