"""Prompts -> what conditions the UNet, for every step (contract: webui-generation 2 and 3)."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdapi.engine.architecture import Family
from sdapi.engine.checkpoint import Components
from sdapi.engine.prompt import chunks
from sdapi.engine.prompt.composition import split_and
from sdapi.engine.prompt.schedule import Timeline, schedule
from sdapi.engine.text_encoder import TextEncoder, TextStates
from sdapi.engine.tokenizer import shared_tokenizer
from sdapi.errors import BadRequest

_CACHED_PROMPTS = 128


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How texts become vectors; a part of every cache key."""

    #: option `CLIP_stop_at_last_layers`
    clip_skip: int = 1
    #: option `emphasis`: Original, No norm, Ignore or None
    emphasis: str = "Original"
    comma_backtrack: int = 20
    #: option `sdxl_clip_l_skip`: let clip skip act on SDXL's first encoder
    sdxl_clip_l_skip: bool = False
    #: SDXL's size conditioning, pixels: (height, width) and (top, left)
    size: tuple[int, int] = (512, 512)
    crop: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Cond:
    """One encoded text: `cross` [T, C] for cross attention; for SDXL `pooled` [P], `sizes` [6]."""

    cross: Tensor
    pooled: Tensor | None = None
    #: original size, crop, target size, each (height, width), pixels
    sizes: Tensor | None = None


@dataclass(frozen=True, slots=True)
class CondSchedule:
    """Encoded texts in step order: `(end_step, cond)`."""

    entries: tuple[tuple[int, Cond], ...]

    def at(self, call: int) -> Cond:
        """The cond at a 0-based denoiser call; an entry holds through its end step, inclusive."""
        for end_step, cond in self.entries:
            if call <= end_step:
                return cond
        return self.entries[-1][1]


@dataclass(frozen=True, slots=True)
class WeightedCond:
    """One part of an AND composition over the steps."""

    schedule: CondSchedule
    weight: float


@dataclass(frozen=True, slots=True)
class BatchCond:
    """Conditioning of a batch: for each image its AND parts and its negative."""

    positive: tuple[tuple[WeightedCond, ...], ...]
    negative: tuple[CondSchedule, ...]


class Conditioner:
    """Encodes prompts with one loaded checkpoint, and remembers the latest."""

    def __init__(self, components: Components) -> None:
        self._components = components
        self._cache: OrderedDict[tuple[object, ...], CondSchedule] = OrderedDict()

    def clear(self) -> None:
        """Forget everything: the text encoders' weights have changed."""
        self._cache.clear()

    def batch(
        self,
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
        timeline: Timeline,
        options: TextOptions,
    ) -> BatchCond:
        """Encode a batch; prompts come without extra-network tags."""
        positive = tuple(
            tuple(
                WeightedCond(self._schedule(part.text, timeline, options), part.weight)
                for part in split_and(prompt)
            )
            for prompt in prompts
        )
        negative = tuple(
            self._schedule(prompt, timeline, options, is_negative=True)
            for prompt in negative_prompts
        )
        return BatchCond(positive, negative)

    def _schedule(
        self, prompt: str, timeline: Timeline, options: TextOptions, *, is_negative: bool = False
    ) -> CondSchedule:
        key = (prompt, timeline, options, is_negative)
        if (found := self._cache.get(key)) is not None:
            self._cache.move_to_end(key)
            return found
        texts = schedule(prompt, timeline)
        conds = self._encode([t.text for t in texts], options, is_negative=is_negative)
        made = CondSchedule(
            tuple((text.end_step, cond) for text, cond in zip(texts, conds, strict=True))
        )
        self._cache[key] = made
        if len(self._cache) > _CACHED_PROMPTS:
            self._cache.popitem(last=False)
        return made

    def _encode(self, texts: list[str], options: TextOptions, *, is_negative: bool) -> list[Cond]:
        rows = [
            chunks.split_chunks(
                text,
                shared_tokenizer(),
                comma_backtrack=options.comma_backtrack,
                use_emphasis=options.emphasis != "None",
            )
            for text in texts
        ]
        longest = max(len(row) for row in rows)
        rows = [row + [chunks.EMPTY] * (longest - len(row)) for row in rows]
        encode = _ENCODERS[self._components.family]
        parts = [
            encode(self._components, [row[i] for row in rows], options) for i in range(longest)
        ]
        cross = torch.cat([part.cross for part in parts], dim=1)
        pooled = parts[0].pooled
        if pooled is None:
            return [Cond(row) for row in cross]
        if is_negative and not any(texts):
            cross, pooled = torch.zeros_like(cross), torch.zeros_like(pooled)
        sizes = torch.tensor([*options.size, *options.crop, *options.size]).to(pooled)
        return [Cond(c, p, sizes) for c, p in zip(cross, pooled, strict=True)]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """One chunk of every text: `cross` [B, 77, C], `pooled` [B, P] or None."""

    cross: Tensor
    pooled: Tensor | None = None


def _encode_sd1(components: Components, row: list[chunks.Chunk], options: TextOptions) -> _Encoded:
    encoder = components.text_encoders[0]
    states = _from_end(_run(encoder, row), options.clip_skip)
    return _Encoded(_emphasise(encoder.final_norm(states), row, options.emphasis))


def _encode_sd2(components: Components, row: list[chunks.Chunk], options: TextOptions) -> _Encoded:
    encoder = components.text_encoders[0]
    states = encoder.final_norm(_run(encoder, row).hidden[-2])
    return _Encoded(_emphasise(states, row, options.emphasis))


def _encode_sdxl(components: Components, row: list[chunks.Chunk], options: TextOptions) -> _Encoded:
    first, second = components.text_encoders
    skip = options.clip_skip if options.sdxl_clip_l_skip else 2
    large = _run(second, row)
    parts = (_from_end(_run(first, row), skip), large.hidden[-2])
    cross = torch.cat([_emphasise(part, row, options.emphasis) for part in parts], dim=-1)
    return _Encoded(cross, large.pooled)


_Encode = Callable[[Components, list[chunks.Chunk], TextOptions], _Encoded]
_ENCODERS: dict[Family, _Encode] = {
    Family.SD1: _encode_sd1,
    Family.SD2: _encode_sd2,
    Family.SDXL: _encode_sdxl,
}


def _from_end(states: TextStates, clip_skip: int) -> Tensor:
    """The hidden state `clip_skip` layers from the end; 1 and less is the last."""
    if clip_skip > len(states.hidden):
        raise BadRequest(
            f"CLIP_stop_at_last_layers: {clip_skip} is more than the {len(states.hidden)} states "
            "of this checkpoint's text encoder"
        )
    return states.hidden[-max(clip_skip, 1)]


def _run(encoder: TextEncoder, row: list[chunks.Chunk]) -> TextStates:
    tokens = torch.tensor([chunk.tokens for chunk in row])
    if encoder.pad_token != chunks.END:
        # Everything after the first end token is padding, whatever it was.
        after_end = (tokens == chunks.END).int().cumsum(dim=1) - (tokens == chunks.END).int() > 0
        tokens = tokens.masked_fill(after_end, encoder.pad_token)
    return encoder.encode(tokens)


def _emphasise(states: Tensor, row: list[chunks.Chunk], emphasis: str) -> Tensor:
    """Scale token states [B, 77, C] by their weights; `Original` keeps the whole tensor's mean."""
    if emphasis in ("Ignore", "None"):
        return states
    weights = torch.tensor([chunk.weights for chunk in row]).to(states.device, states.dtype)
    scaled = states * weights.unsqueeze(-1)
    return scaled if emphasis == "No norm" else scaled * (states.mean() / scaled.mean())
