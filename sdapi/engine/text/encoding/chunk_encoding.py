"""Chunks of tokens -> vectors, weighted by emphasis, from the states that a family reads."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.text import chunks
from sdapi.engine.text.encoding import compel_encoding
from sdapi.engine.text.encoding.text_encoder import Replaced, TextEncoder, TextStates
from sdapi.engine.text.text_options import TextOptions
from sdapi.errors import BadRequest

#: bounds what one pass of a text encoder holds in memory
_TEXTS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Column:
    """One chunk of every text of a prompt, and how often the schedule has each text."""

    chunks: list[chunks.Chunk]
    shares: Tensor


@dataclass(frozen=True, slots=True)
class Encoded:
    """One chunk of every text: `cross` [B, 77, C], `pooled` [B, P] or None."""

    cross: Tensor
    pooled: Tensor | None = None


def encode_column(components: Components, row: Column, options: TextOptions) -> Encoded:
    """Encode one chunk of every text, as the checkpoint's family is trained to read them."""
    return _ENCODERS[components.family](components, row, options)


def encode_chunks(
    components: Components, texts: list[chunks.Chunk]
) -> tuple[Tensor, Tensor | None]:
    """Encode one chunk of each text, every token weighing 1: [B, 77, C], for SDXL also [B, P].

    Gradients flow where they are wanted; nothing is remembered.
    """
    column = Column(texts, torch.ones(len(texts)))
    encoded = encode_column(components, column, TextOptions(emphasis="None"))
    return encoded.cross, encoded.pooled


def compel_layers(family: Family, options: TextOptions) -> tuple[compel_encoding.ChooseLayer, ...]:
    """The states that the functions below choose, for each text encoder."""
    if family is Family.SD1:
        return (lambda encoder, s: encoder.final_norm(_from_end(s, options.clip_skip)),)
    if family is Family.SD2:
        return (lambda encoder, s: encoder.final_norm(s.hidden[-2]),)
    skip = options.clip_skip if options.sdxl_clip_l_skip else 2
    return (lambda _, s: _from_end(s, skip), lambda _, s: s.hidden[-2])


def _encode_sd1(components: Components, row: Column, options: TextOptions) -> Encoded:
    encoder = components.text_encoders[0]
    states = _from_end(_run(encoder, row, 0), options.clip_skip)
    return Encoded(_emphasise(encoder.final_norm(states), row, options.emphasis))


def _encode_sd2(components: Components, row: Column, options: TextOptions) -> Encoded:
    encoder = components.text_encoders[0]
    states = encoder.final_norm(_run(encoder, row, 0).hidden[-2])
    return Encoded(_emphasise(states, row, options.emphasis))


def _encode_sdxl(components: Components, row: Column, options: TextOptions) -> Encoded:
    first, second = components.text_encoders
    skip = options.clip_skip if options.sdxl_clip_l_skip else 2
    large = _run(second, row, 1)
    parts = (_from_end(_run(first, row, 0), skip), large.hidden[-2])
    cross = torch.cat([_emphasise(part, row, options.emphasis) for part in parts], dim=-1)
    return Encoded(cross, large.pooled)


_Encode = Callable[[Components, Column, TextOptions], Encoded]
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


def _run(encoder: TextEncoder, row: Column, number: int) -> TextStates:
    """Run the `number`-th text encoder; an embedding has vectors for each of them."""
    tokens = torch.tensor([chunk.tokens for chunk in row.chunks])
    if encoder.pad_token != chunks.END:
        # Everything after the first end token is padding, whatever it was.
        is_end = (tokens == chunks.END).int()
        tokens = tokens.masked_fill(is_end.cumsum(dim=1) - is_end > 0, encoder.pad_token)
    parts = [
        encoder.encode(part, _replaced(row.chunks[first : first + len(part)], number))
        for first, part in zip(
            range(0, len(tokens), _TEXTS_AT_ONCE), tokens.split(_TEXTS_AT_ONCE), strict=True
        )
    ]
    pooled = [part.pooled for part in parts if part.pooled is not None]
    hidden = zip(*(part.hidden for part in parts), strict=True)
    return TextStates(
        tuple(torch.cat(states) for states in hidden), torch.cat(pooled) if pooled else None
    )


def _replaced(row: list[chunks.Chunk], number: int) -> list[Replaced]:
    return [
        Replaced(index, placed.offset, placed.embedding.vectors[number])
        for index, chunk in enumerate(row)
        for placed in chunk.embeddings
    ]


def _emphasise(states: Tensor, row: Column, emphasis: str) -> Tensor:
    """Scale token states [B, 77, C] by their weights; `Original` keeps the mean over all texts."""
    if emphasis in ("Ignore", "None"):
        return states
    weights = torch.tensor([chunk.weights for chunk in row.chunks])
    scaled = states * weights.to(states.device, states.dtype).unsqueeze(-1)
    if emphasis == "No norm":
        return scaled
    # A text that the schedule repeats counts as often as it stands there.
    shares = row.shares.to(states.device, states.dtype)
    before, after = (t.mean(dim=(1, 2)) @ shares for t in (states, scaled))
    return scaled * (before / after)
