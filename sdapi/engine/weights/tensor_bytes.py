"""How much memory tensors take."""

from collections.abc import Iterable
from itertools import chain

from torch import Tensor, nn


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """The bytes of tensors; those on the meta device have none."""
    return sum(tensor.nbytes for tensor in tensors if not tensor.is_meta)


def module_bytes(*modules: nn.Module) -> int:
    """The bytes of modules' parameters and buffers."""
    return bytes_of(chain.from_iterable((*m.parameters(), *m.buffers()) for m in modules))
