"""The second attention: a layer's queries over the tokens of a picture, added to the text's."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdapi.engine.adaptations.hooks import Hooks


@dataclass(slots=True)
class PictureCall:
    """What the layers of one unit share during a call of the UNet."""

    #: for each row 0, which takes the picture's tokens, or 1, those of none; None: not active
    rows: Tensor | None = None
    #: the latent's (height, width)
    size: tuple[int, int] = (0, 0)
    #: where the unit acts [1, 1, H, W]; None: everywhere
    region: Tensor | None = None
    _shares: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def begin(self, rows: Tensor, size: tuple[int, int]) -> None:
        """A call with these rows is about to happen."""
        if size != self.size:
            self._shares.clear()
        self.rows, self.size = rows, size

    def share_of(self, tokens: int) -> Tensor | None:
        """How much each of a layer's tokens belongs to the region [1, N, 1]."""
        if self.region is None:
            return None
        if tokens not in self._shares:
            grid = token_grid(tokens, self.size)
            resized = F.interpolate(self.region, size=grid, mode="bilinear", antialias=True)
            self._shares[tokens] = resized.reshape(1, tokens, 1)
        return self._shares[tokens]


def token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a layer's tokens: the latent halved some times, rounded up."""
    height, width = size
    while height * width > tokens:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    return height, width


class PictureLayer:
    """One cross-attention with the keys and values of a picture."""

    def __init__(
        self, call: PictureCall, layer: Any, keys: Tensor, values: Tensor, scale: float
    ) -> None:
        """Keys and values [2, T, inner]: of the picture, and of none."""
        self._call, self._layer, self._scale = call, layer, scale
        self._keys, self._values = keys, values
        self._query: Tensor | None = None

    def place(self, hooks: Hooks) -> None:
        """Look at the queries, and add to what the layer's output is made of."""
        hooks.after(self._layer.to_q, self._remember)
        hooks.before(self._layer.to_out[0], self._add)

    def _remember(self, query: Tensor) -> Tensor:
        self._query = query if self._call.rows is not None else None
        return query

    def _add(self, hidden: Tensor) -> Tensor:
        query, rows, self._query = self._query, self._call.rows, None
        if query is None or rows is None:
            return hidden
        keys, values = (self._heads(each[rows].to(query.dtype)) for each in self._both)
        made = F.scaled_dot_product_attention(
            self._heads(query), keys, values, scale=self._layer.scale
        )
        joined = made.transpose(1, 2).flatten(2)
        share = self._call.share_of(joined.shape[1])
        if share is not None:
            joined = joined * share.to(joined.dtype)
        return hidden + self._scale * joined.to(hidden.dtype)

    @property
    def _both(self) -> tuple[Tensor, Tensor]:
        return self._keys, self._values

    def _heads(self, x: Tensor) -> Tensor:
        """[N, T, inner] -> [N, heads, T, width]."""
        return x.unflatten(2, (self._layer.heads, -1)).transpose(1, 2)


def project(tokens: Tensor, weight: Tensor) -> Tensor:
    """Keys or values [2, T, inner] of tokens [2, T, context]."""
    return torch.nn.functional.linear(tokens.to(weight.dtype), weight)
