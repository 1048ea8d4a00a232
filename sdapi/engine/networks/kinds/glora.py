"""GLoRA (Chavan et al. 2023): a low-rank change that depends on the weight itself."""

from torch import Tensor

from sdapi.engine.networks.layer import Change, Parts


def glora(parts: Parts, weight: Tensor, dyn: int | None) -> Change:
    """`b2 @ b1 + weight @ a2 @ a1`; newer files have each pair the other way round.

    Of a convolution the matrices act on the channels: 1 x 1 as they are, others by a flat kernel.
    """
    names = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
    a1, a2, b1, b2 = (parts[name].to(weight.dtype).flatten(1) for name in names)
    flat = weight.flatten(1)
    is_older = a1.shape[0] == a2.shape[1] == b1.shape[0] == b2.shape[1]
    if not (is_older and b2.shape[0] == len(flat)):
        a1, a2, b1, b2 = a2, a1, b2, b1
    return Change(b2 @ b1 + (flat @ a2) @ a1, rank=b1.shape[0])
