"""Token merging (Bolya and Hoffman 2023): self-attention over fewer tokens, alike ones averaged.

Contract: webui-scripts 18. No randomness: the destinations are the top left of every 2x2 cells.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from sdapi.engine.adaptations.hooks import Hooks

#: tokens a side of a cell
_CELL = 2


@dataclass(frozen=True, slots=True)
class Matching:
    """Which tokens of [B, N, C] become one. Sources are numbered among themselves, so are
    destinations."""

    #: token numbers, [S] and [D]
    sources: Tensor
    destinations: Tensor
    #: numbers of sources, [B, S - r] and [B, r]
    kept: Tensor
    merged: Tensor
    #: for each merged source the number of its destination, [B, r]
    targets: Tensor

    @classmethod
    def of(cls, tokens: Tensor, size: tuple[int, int], ratio: float) -> "Matching":
        """Match the tokens [B, H * W, C] of a grid of `size` (H, W) by cosine similarity."""
        sources, destinations = _split(size, tokens.device)
        count = min(len(sources), int(tokens.shape[1] * ratio))
        unit = F.normalize(tokens, dim=-1)
        scores = unit[:, sources] @ unit[:, destinations].transpose(-1, -2)
        best, target = scores.max(dim=-1)
        order = best.argsort(dim=-1, descending=True)
        merged = order[:, :count]
        return cls(sources, destinations, order[:, count:], merged, target.gather(1, merged))

    def merge(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N - r, C]: kept sources, then destinations with what was merged in."""
        sources, destinations = x[:, self.sources], x[:, self.destinations]
        index = _columns(self.targets, x.shape[-1])
        merged = destinations.scatter_reduce(1, index, _take(sources, self.merged), reduce="mean")
        return torch.cat([_take(sources, self.kept), merged], dim=1)

    def unmerge(self, x: Tensor) -> Tensor:
        """[B, N - r, C] -> [B, N, C]: merged sources get what their destination has."""
        kept, destinations = x.split([self.kept.shape[1], len(self.destinations)], dim=1)
        whole = x.new_empty(x.shape[0], len(self.sources) + len(self.destinations), x.shape[-1])
        whole[:, self.destinations] = destinations
        width = x.shape[-1]
        whole.scatter_(1, _columns(self.sources[self.kept], width), kept)
        copies = _take(destinations, self.targets)
        return whole.scatter_(1, _columns(self.sources[self.merged], width), copies)


def _split(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token numbers of sources and destinations; what fills no 2x2 cell is a source."""
    height, width = size
    is_destination = torch.zeros(height, width, dtype=torch.bool)
    whole = height // _CELL * _CELL, width // _CELL * _CELL
    is_destination[: whole[0] : _CELL, : whole[1] : _CELL] = True
    flat = is_destination.flatten()
    return (~flat).nonzero()[:, 0].to(device), flat.nonzero()[:, 0].to(device)


def _columns(index: Tensor, width: int) -> Tensor:
    return index.unsqueeze(-1).expand(-1, -1, width)


def _take(rows: Tensor, index: Tensor) -> Tensor:
    return rows.gather(1, _columns(index, rows.shape[-1]))


@dataclass(slots=True)
class _Grid:
    """The latent's size (height, width) at the current call of the UNet."""

    size: tuple[int, int] = (0, 0)

    def note(self, sample: Tensor) -> Tensor:
        self.size = (sample.shape[-2], sample.shape[-1])
        return sample


@dataclass(slots=True)
class _Block:
    """One transformer block: matches by its input, merges and unmerges around its attention."""

    grid: _Grid
    ratio: float
    latest: list[Matching] = field(default_factory=list[Matching])

    def match(self, tokens: Tensor) -> Tensor:
        """Find what to merge; nothing in a grid without a whole cell, which has no destination."""
        has_cells = min(self.grid.size) >= _CELL
        self.latest = [Matching.of(tokens, self.grid.size, self.ratio)] if has_cells else []
        return tokens

    def merge(self, x: Tensor) -> Tensor:
        return self.latest[0].merge(x) if self.latest else x

    def unmerge(self, x: Tensor) -> Tensor:
        return self.latest.pop().unmerge(x) if self.latest else x


def merge_tokens(hooks: Hooks, unet: UNet2DConditionModel, ratio: float) -> None:
    """Merge a share of the tokens in the self-attentions at the latent's own resolution.

    SDXL has none there.
    """
    grid = _Grid()
    hooks.before(unet, grid.note)
    for block in _full_resolution_blocks(unet):
        state = _Block(grid, ratio)
        hooks.before(block, state.match)
        hooks.around(block.get_submodule("attn1"), state.merge, state.unmerge)


def _full_resolution_blocks(unet: UNet2DConditionModel) -> list[nn.Module]:
    attentions = [
        attention
        for level in (unet.down_blocks[0], unet.up_blocks[-1])
        for attention in getattr(level, "attentions", ())
    ]
    return [block for attention in attentions for block in attention.transformer_blocks]
