"""One layer of a network file, and what it makes of the weight it belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

#: what a layer consists of, under the names network files use
Parts = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Change:
    """What a kind of network computes for a weight, before any scaling."""

    #: as many elements as the weight has, in any shape
    delta: Tensor
    #: what `alpha` is divided by, None where it does not apply
    rank: int | None = None
    #: added to the layer's bias
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a file says about the strength of a layer; read once, so that no device is asked."""

    alpha: float | None = None
    scale: float | None = None

    def of(self, rank: int | None) -> float:
        """`scale`, else `alpha / rank`, else 1 (contract: webui-generation 14)."""
        if self.scale is not None:
            return self.scale
        if self.alpha is not None and rank:
            return self.alpha / rank
        return 1.0


@dataclass(frozen=True, slots=True)
class NetworkLayer:
    """The tensors of one layer; `move` of the network that holds it replaces them."""

    parts: dict[str, Tensor]
    scaling: Scaling = field(default_factory=Scaling)

    @classmethod
    def of(cls, parts: Parts) -> "NetworkLayer":
        """Take the numbers out of a layer's tensors."""
        rest = {name: tensor for name, tensor in parts.items() if name not in ("alpha", "scale")}
        alpha, scale = _number(parts.get("alpha")), _number(parts.get("scale"))
        if "oft_blocks" in parts and alpha:
            rest["constraint"] = torch.tensor(alpha)  # of OFT `alpha` bounds the rotation
        return cls(rest, Scaling(alpha, scale))


def finished(layer: NetworkLayer, change: Change, weight: Tensor) -> Tensor:
    """The change of a weight at strength 1: fitted to its shape, scaled, decomposed for DoRA.

    Raises `ValueError` when the shapes do not fit.
    """
    delta = change.delta
    if (bias := layer.parts.get("bias")) is not None:
        delta = delta.reshape(bias.shape) + bias.to(delta)
    delta = _fitted(delta, weight) * layer.scaling.of(change.rank)
    for name in ("dora_scale", "lora_magnitude_vector"):
        if (magnitude := layer.parts.get(name)) is not None:
            return _decomposed(weight, delta, magnitude)
    return delta


def _fitted(delta: Tensor, weight: Tensor) -> Tensor:
    """`delta` in the shape of `weight`.

    An inpainting UNet's first convolution has five channels more than the networks made for others
    know; those stay as they are.
    """
    if delta.numel() == weight.numel():
        return delta.reshape(weight.shape)
    if delta.ndim == weight.ndim == 4 and (delta.shape[1], weight.shape[1]) == (4, 9):
        delta = F.pad(delta, (0, 0, 0, 0, 0, weight.shape[1] - delta.shape[1]))
    if delta.shape != weight.shape:
        raise ValueError(f"a change of {list(delta.shape)} for {list(weight.shape)}")
    return delta


def _decomposed(weight: Tensor, delta: Tensor, magnitude: Tensor) -> Tensor:
    """DoRA (Liu et al. 2024): the changed weight keeps its direction and takes a learnt length.

    Lengths [1, in, …] are those of columns, as kohya's programs store them; [out], [out, 1, …]
    those of rows, as peft's and later LyCORIS' do.
    """
    wide = weight.float()
    merged = wide + delta.float()
    rows, columns = weight.shape[:2]
    lengths = magnitude.float().to(merged.device)
    by_column = lengths.ndim > 1 and lengths.shape[0] == 1 and lengths.numel() == columns
    if not by_column and lengths.numel() != rows:
        raise ValueError(f"{lengths.numel()} lengths for a weight of {list(weight.shape)}")
    shape = [1, -1] if by_column else [-1, 1]
    others = [d for d in range(merged.ndim) if d != (1 if by_column else 0)]
    norms = torch.linalg.vector_norm(merged, dim=others, keepdim=True)
    lengths = lengths.reshape(*shape, *[1] * (merged.ndim - 2))
    return (merged * (lengths / norms) - wide).to(delta.dtype)


def _number(tensor: Tensor | None) -> float | None:
    return None if tensor is None else float(tensor.float().mean())
