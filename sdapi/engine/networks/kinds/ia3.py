"""IA3 (Liu et al. 2022): a learnt factor for each input or output of a layer."""

from torch import Tensor

from sdapi.engine.networks.layer import Change, Parts


def ia3(parts: Parts, weight: Tensor, dyn: int | None) -> Change:
    """The weight times its factors, which count inputs or outputs as `on_input` says."""
    others = [1] * (weight.ndim - 2)
    shape = (1, -1, *others) if bool(parts["on_input"]) else (-1, 1, *others)
    return Change(weight * parts["weight"].reshape(shape))
