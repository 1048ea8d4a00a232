"""Full: the difference of two checkpoints, as it is."""

from torch import Tensor

from sdapi.engine.networks.layer import Change, Parts


def full(parts: Parts, weight: Tensor, dyn: int | None) -> Change:
    """The stored difference of a weight, and that of its bias where there is one."""
    return Change(parts["diff"], bias=parts.get("diff_b"))
