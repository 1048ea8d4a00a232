"""The difference of a normalisation layer's weight and bias."""

from torch import Tensor

from sdapi.engine.networks.layer import Change, Parts


def norm(parts: Parts, weight: Tensor, dyn: int | None) -> Change:
    """The stored differences."""
    return Change(parts["w_norm"], bias=parts["b_norm"])
