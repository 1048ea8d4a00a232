"""Hypertile (tfernd 2023): self-attention in tiles of a random size.

Contract: webui-scripts 13.
"""

import math
import random
from dataclasses import dataclass
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from sdapi.engine.adaptations.hooks import Hooks
from sdapi.engine.jobs.job import TileOptions

_SMALLEST_TILE = 128
_LATENT = 8
_MIDDLE_DEPTH = 3


@dataclass(frozen=True, slots=True)
class Tiling:
    """How attention is cut for pictures of a size."""

    #: the picture's (width, height)
    size: tuple[int, int]
    options: TileOptions
    #: one for the whole job, seeded with its first seed
    generator: random.Random

    @property
    def smallest(self) -> int:
        """The smallest tile's side in latent cells."""
        common = math.gcd(*self.size)
        power = common & -common
        return max(_SMALLEST_TILE, min(power, self.options.max_tile)) // _LATENT

    def counts(self, height: int, width: int, depth: int) -> tuple[int, int]:
        """Into how many tiles a feature map is cut each way; draws twice from the generator."""
        smallest = self.smallest << depth
        rows = _tile_count(height, smallest, self.options.swap_size, self.generator)
        return rows, _tile_count(width, smallest, self.options.swap_size, self.generator)


def _tile_count(length: int, smallest: int, candidates: int, generator: random.Random) -> int:
    smallest = min(smallest, length)
    divisors = [i for i in range(smallest, length + 1) if length % i == 0]
    counts = [length // divisor for divisor in divisors[: max(1, candidates)]]
    return counts[generator.randint(0, len(counts) - 1)]


def grid_of(tokens: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that a number of tokens is taken for.

    The aspect ratio enters as width over height, so for other than square pictures the two are
    exchanged; the reference does so.
    """
    ratio = size[0] / size[1]
    rows, columns = round(math.sqrt(tokens * ratio)), round(math.sqrt(tokens / ratio))
    if rows * columns == tokens:
        return rows, columns
    if rows and tokens % rows == 0:
        return rows, tokens // rows
    if columns and tokens % columns == 0:
        return tokens // columns, columns
    pairs = [(i, tokens // i) for i in range(1, tokens + 1) if tokens % i == 0]
    return min(pairs, key=lambda pair: abs(pair[0] / pair[1] - ratio))


class _TokenTiles:
    """Tokens [B, N, C] to tiles on the batch axis and back; one for each layer."""

    def __init__(self, tiling: Tiling, depth: int) -> None:
        self._tiling = tiling
        self._depth = depth
        self._shape = (1, 1, 1, 1)

    def cut(self, x: Tensor) -> Tensor:
        height, width = grid_of(x.shape[1], self._tiling.size)
        rows, columns = self._tiling.counts(height, width, self._depth)
        self._shape = (rows, height // rows, columns, width // columns)
        return x if rows * columns == 1 else _cut(x, self._shape)

    def join(self, x: Tensor) -> Tensor:
        rows, _, columns, _ = self._shape
        return x if rows * columns == 1 else _join(x, self._shape)


def _cut(x: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """[B, N, C] -> [B * rows * columns, h * w, C] for (rows, h, columns, w)."""
    rows, height, columns, width = shape
    grid = x.reshape(-1, rows, height, columns, width, x.shape[-1])
    return grid.transpose(2, 3).reshape(-1, height * width, x.shape[-1])


def _join(x: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    rows, height, columns, width = shape
    grid = x.reshape(-1, rows, columns, height, width, x.shape[-1])
    return grid.transpose(2, 3).reshape(-1, rows * height * columns * width, x.shape[-1])


class _MapTiles:
    """Feature maps [B, C, H, W] to tiles on the batch axis and back."""

    def __init__(self, tiling: Tiling) -> None:
        self._tiling = tiling
        self._shape = (1, 1, 1, 1)

    def cut(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        rows, columns = self._tiling.counts(height, width, depth=0)
        self._shape = (rows, height // rows, columns, width // columns)
        tokens = _cut(x.flatten(2).transpose(1, 2), self._shape)
        return tokens.transpose(1, 2).reshape(-1, channels, *self._shape[1::2])

    def join(self, x: Tensor) -> Tensor:
        rows, height, columns, width = self._shape
        tokens = _join(x.flatten(2).transpose(1, 2), self._shape)
        return tokens.transpose(1, 2).reshape(-1, x.shape[1], rows * height, columns * width)


def tile_unet(hooks: Hooks, unet: UNet2DConditionModel, tiling: Tiling, *, is_sdxl: bool) -> None:
    """Cut the UNet's self-attentions as deep as the options say."""
    depths = _sdxl_depths(unet) if is_sdxl else _sd_depths(unet)
    for layer, depth in depths:
        if depth <= tiling.options.max_depth:
            tiles = _TokenTiles(tiling, depth)
            hooks.around(layer, tiles.cut, tiles.join)


def tile_vae(hooks: Hooks, vae: AutoencoderKL, tiling: Tiling) -> None:
    """Cut the self-attention in the middle of the decoder."""
    middle = vae.decoder.mid_block
    for layer in getattr(middle, "attentions", ()):
        tiles = _MapTiles(tiling)
        hooks.around(layer, tiles.cut, tiles.join)


_Depths = list[tuple[nn.Module, int]]


def _sd_depths(unet: UNet2DConditionModel) -> _Depths:
    """Depth is the number of halvings; only the first layer of each attention takes part."""
    levels = [*enumerate(unet.down_blocks), *enumerate(reversed([*unet.up_blocks]))]
    found = [(blocks[0], depth) for depth, level in levels for blocks in _transformers(level)]
    found += [(blocks[0], _MIDDLE_DEPTH) for blocks in _transformers(unet.mid_block)]
    return [(block.attn1, depth) for block, depth in found]


def _sdxl_depths(unet: UNet2DConditionModel) -> _Depths:
    """At the half resolution the first two layers, one a depth; below it all of them."""
    downs, ups = [*unet.down_blocks], [*unet.up_blocks][::-1]
    found: list[tuple[Any, int]] = []
    for level in (downs[1], ups[1]):
        found += [(b, i) for blocks in _transformers(level) for i, b in enumerate(blocks[:2])]
    for depth, levels in ((1, (*downs[2:], *ups[2:])), (2, (unet.mid_block,))):
        found += [(b, depth) for level in levels for blocks in _transformers(level) for b in blocks]
    return [(block.attn1, depth) for block, depth in found]


def _transformers(level: Any) -> list[list[Any]]:
    return [[*attention.transformer_blocks] for attention in getattr(level, "attentions", ())]
