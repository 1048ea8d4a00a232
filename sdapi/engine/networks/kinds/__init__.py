"""The kinds of network, one file for each; `change_of` tells which one a layer is of."""

from collections.abc import Callable

from torch import Tensor

from sdapi.engine.networks.kinds.full import full
from sdapi.engine.networks.kinds.glora import glora
from sdapi.engine.networks.kinds.ia3 import ia3
from sdapi.engine.networks.kinds.loha import loha
from sdapi.engine.networks.kinds.lokr import lokr
from sdapi.engine.networks.kinds.lora import lora
from sdapi.engine.networks.kinds.norm import norm
from sdapi.engine.networks.kinds.oft import boft_or_oft, oft_diag
from sdapi.engine.networks.layer import Change, Parts

#: Computes a layer's change of `weight`, on whose device the parts are; `dyn` bounds the rank.
ChangeOf = Callable[[Parts, Tensor, int | None], Change]

#: the parts that tell a kind, and the kind
_KINDS: tuple[tuple[tuple[str, ...], ChangeOf], ...] = (
    (("lora_up.weight", "lora_down.weight"), lora),
    (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), loha),
    (("weight", "on_input"), ia3),
    (("lokr_w1", "lokr_w2"), lokr),
    (("lokr_w1", "lokr_w2_a", "lokr_w2_b"), lokr),
    (("lokr_w1_a", "lokr_w1_b", "lokr_w2"), lokr),
    (("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"), lokr),
    (("diff",), full),
    (("w_norm", "b_norm"), norm),
    (("oft_blocks",), boft_or_oft),
    (("oft_diag",), oft_diag),
    (("a1.weight", "a2.weight", "b1.weight", "b2.weight"), glora),
)


def change_of(parts: Parts) -> ChangeOf | None:
    """The kind of a layer, None for one that is of no known kind."""
    return next((kind for names, kind in _KINDS if all(n in parts for n in names)), None)
