"""LoRA (Hu et al. 2021), and LoCon, which is LoRA on convolutions."""

import torch
from torch import Tensor

from sdapi.engine.networks.layer import Change, Parts


def lora(parts: Parts, weight: Tensor, dyn: int | None) -> Change:
    """`up @ down`; with a middle tensor the core of a Tucker decomposition.

    `dyn` takes the first ranks only, the scale remains that of the full rank.
    """
    up, down = (parts[f"lora_{side}.weight"].to(weight.dtype) for side in ("up", "down"))
    rank = down.shape[0]
    rows, columns = up.flatten(1), down.flatten(1)
    middle = parts.get("lora_mid.weight")
    if middle is None:
        kernel = down.shape[2:]
        delta = (rows[:, :dyn] @ columns[:dyn]).reshape(len(up), down.shape[1], *kernel)
    else:
        # middle [r, r, h, w]: the ranks of `up`, those of `down`, and the kernel
        delta = torch.einsum("or,rs...,si->oi...", rows, middle.to(rows), columns)
    return Change(delta, rank)
