"""LoHa: the Hadamard product of two low-rank matrices (FedPara, Hyeon-Woo et al. 2021)."""

from torch import Tensor

from sdapi.engine.networks.kinds.tucker import tucker
from sdapi.engine.networks.layer import Change, Parts


def loha(parts: Parts, weight: Tensor, dyn: int | None) -> Change:
    """`(w1_a @ w1_b) * (w2_a @ w2_b)`, each side in Tucker form where it has a core."""
    own = {name: tensor.to(weight.dtype) for name, tensor in parts.items()}
    return Change(_side(own, 1) * _side(own, 2), rank=own["hada_w1_b"].shape[0])


def _side(parts: Parts, number: int) -> Tensor:
    left, right = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
    core = parts.get(f"hada_t{number}")
    return left.flatten(1) @ right.flatten(1) if core is None else tucker(core, left, right)
