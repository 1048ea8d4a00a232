"""Prompts -> what conditions the UNet, for every step (contract: webui-generation 2 and 3)."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.networks.embedding_file import Embedding
from sdapi.engine.text import chunks
from sdapi.engine.text.encoding import compel_encoding
from sdapi.engine.text.grammar.composition import split_and
from sdapi.engine.text.embeddings import EmbeddingIndex
from sdapi.engine.text.notes import TextNotes
from sdapi.engine.text.grammar.schedule import Timeline, schedule
from sdapi.engine.text.encoding.text_encoder import Replaced, TextEncoder, TextStates
from sdapi.engine.text.tokenizer import shared_tokenizer
from sdapi.engine.weights.model_file import ModelFile
from sdapi.engine.weights.tensor_bytes import bytes_of
from sdapi.errors import BadRequest

_CACHE_BYTES = 256 << 20
#: bounds what one pass of a text encoder holds in memory
_TEXTS_AT_ONCE = 32


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
    #: option `prompt_attention`: webui, or compel
    attention: str = "webui"


@dataclass(frozen=True, slots=True)
class Cond:
    """One encoded text: `cross` [T, C] for cross attention; for SDXL `pooled` [P], `sizes` [6]."""

    cross: Tensor
    pooled: Tensor | None = None
    #: original size, crop, target size, each (height, width), pixels
    sizes: Tensor | None = None

    @property
    def size_bytes(self) -> int:
        tensors = (self.cross, self.pooled, self.sizes)
        return bytes_of(t for t in tensors if t is not None)


@dataclass(frozen=True, slots=True)
class CondSchedule:
    """Encoded texts in step order: `(end_step, cond)`."""

    entries: tuple[tuple[int, Cond], ...]
    notes: TextNotes = field(default_factory=TextNotes)

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
    #: the encoding of the empty prompt, where conds are padded with it
    empty: Cond | None = None

    @property
    def notes(self) -> tuple[TextNotes, ...]:
        """Of each text that was encoded, negative ones first."""
        positive = (part.schedule for parts in self.positive for part in parts)
        # Equal texts share a schedule.
        distinct = {id(each): each for each in (*self.negative, *positive)}
        return tuple(each.notes for each in distinct.values())


class Conditioner:
    """Encodes prompts with one loaded checkpoint, and remembers the latest."""

    def __init__(self, components: Components) -> None:
        self._components = components
        #: what the text encoders' weights are made of; with the embeddings a part of every cache
        #: key, so that going back to a state finds its encodings again
        self._weights: Hashable = ()
        self._embeddings: tuple[tuple[ModelFile, ...], tuple[Embedding, ...]] = ((), ())
        self._index = self._make_index()
        #: schedules with the bytes they hold
        self._cache: OrderedDict[tuple[object, ...], tuple[CondSchedule, int]] = OrderedDict()

    def clear(self) -> None:
        """Forget everything."""
        self._cache.clear()

    def use_weights(self, state: Hashable) -> None:
        """Take note of what the text encoders' weights are made of now."""
        self._weights = state

    def use_embeddings(
        self, files: tuple[ModelFile, ...], bundled: tuple[Embedding, ...] = ()
    ) -> None:
        """Know these embeddings from now on: files, and those that networks bring along."""
        if (files, bundled) != self._embeddings:
            self._embeddings = files, bundled
            self._index = self._make_index()

    def _make_index(self) -> EmbeddingIndex:
        widths = tuple(encoder.width for encoder in self._components.text_encoders)
        return EmbeddingIndex(*self._embeddings, widths, shared_tokenizer())

    def batch(
        self,
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
        timeline: Timeline,
        options: TextOptions,
    ) -> BatchCond:
        """Encode a batch; prompts come without extra-network tags."""
        if options.attention == "compel":
            return self._compel_batch(prompts, negative_prompts, options)
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

    def _compel_batch(
        self, prompts: Sequence[str], negative_prompts: Sequence[str], options: TextOptions
    ) -> BatchCond:
        """All texts of a batch in compel's way, as long as its longest."""
        texts = tuple(dict.fromkeys((*prompts, *negative_prompts)))
        key = (texts, options, self._weights)
        if (found := self._cache.get(key)) is None:
            conds = _encode_compel(self._components, texts, options)
            # Texts instead of steps: entry `i` is that of text `i`.
            made = CondSchedule(tuple(enumerate(conds)))
            self._remember(key, made, sum(cond.size_bytes for cond in conds))
            found = self._cache[key]
        by_text = {
            text: CondSchedule(((0, cond),))
            for text, (_, cond) in zip(texts, found[0].entries, strict=True)
        }
        positive = tuple((WeightedCond(by_text[prompt], 1.0),) for prompt in prompts)
        return BatchCond(positive, tuple(by_text[prompt] for prompt in negative_prompts))

    def empty(self, options: TextOptions) -> Cond:
        """The encoding of the empty prompt."""
        return self._schedule("", Timeline(1), options).at(0)

    def unscheduled(
        self, prompt: str, negative_prompt: str, count: int, options: TextOptions
    ) -> BatchCond:
        """`count` times two texts as they stand: weights count, schedules and `AND` do not."""
        cond, uncond = (
            CondSchedule(
                ((0, self._encode(self._split([text], options)[0], {text: 1}, options)[0]),)
            )
            for text in (prompt, negative_prompt)
        )
        return BatchCond(((WeightedCond(cond, 1.0),),) * count, (uncond,) * count)

    def _schedule(
        self, prompt: str, timeline: Timeline, options: TextOptions, *, is_negative: bool = False
    ) -> CondSchedule:
        key = (prompt, timeline, options, is_negative, self._weights, self._index)
        if (found := self._cache.get(key)) is not None:
            self._cache.move_to_end(key)
            return found[0]
        texts = schedule(prompt, timeline)
        counts = Counter(each.text for each in texts)
        rows, refused = self._split(counts, options)
        encoded = self._encode(rows, counts, options, is_negative=is_negative)
        conds = dict(zip(counts, encoded, strict=True))
        made = CondSchedule(
            tuple((each.end_step, conds[each.text]) for each in texts),
            # Every text encoder comes upon them: SDXL's infotexts tell them twice.
            TextNotes(
                _used_embeddings(rows) * len(self._components.text_encoders),
                tuple(sorted(refused)),
            ),
        )
        self._remember(key, made, sum(cond.size_bytes for cond in encoded))
        return made

    def _remember(self, key: tuple[object, ...], made: CondSchedule, size_bytes: int) -> None:
        self._cache[key] = made, size_bytes
        while sum(size for _, size in self._cache.values()) > _CACHE_BYTES and len(self._cache) > 1:
            self._cache.popitem(last=False)

    def _split(
        self, texts: Iterable[str], options: TextOptions
    ) -> tuple[list[list[chunks.Chunk]], set[str]]:
        """The chunks of each text, as many for every one, and why embeddings were not used."""
        refused: set[str] = set()
        rows = [
            chunks.split_chunks(
                text,
                shared_tokenizer(),
                lambda tokens, position: self._index.at(tokens, position, refused),
                comma_backtrack=options.comma_backtrack,
                use_emphasis=options.emphasis != "None",
            )
            for text in texts
        ]
        longest = max(len(row) for row in rows)
        return [row + [chunks.EMPTY] * (longest - len(row)) for row in rows], refused

    def _encode(
        self,
        rows: list[list[chunks.Chunk]],
        counts: Mapping[str, int],
        options: TextOptions,
        *,
        is_negative: bool = False,
    ) -> list[Cond]:
        """Encode the texts of one prompt; `counts` says how often its schedule has each."""
        encode = _ENCODERS[self._components.family]
        shares = torch.tensor([float(count) for count in counts.values()])
        parts = [
            encode(self._components, _Column([row[i] for row in rows], shares), options)
            for i in range(len(rows[0]))
        ]
        cross = torch.cat([part.cross for part in parts], dim=1)
        pooled = parts[0].pooled
        if pooled is None:
            return [Cond(row) for row in cross]
        if is_negative and not any(counts):
            cross, pooled = torch.zeros_like(cross), torch.zeros_like(pooled)
        sizes = torch.tensor([*options.size, *options.crop, *options.size]).to(pooled)
        return [Cond(c, p, sizes) for c, p in zip(cross, pooled, strict=True)]


@dataclass(frozen=True, slots=True)
class _Column:
    """One chunk of every text of a prompt, and how often the schedule has each text."""

    chunks: list[chunks.Chunk]
    shares: Tensor


@dataclass(frozen=True, slots=True)
class _Encoded:
    """One chunk of every text: `cross` [B, 77, C], `pooled` [B, P] or None."""

    cross: Tensor
    pooled: Tensor | None = None


def encode_chunks(
    components: Components, texts: list[chunks.Chunk]
) -> tuple[Tensor, Tensor | None]:
    """Encode one chunk of each text, every token weighing 1: [B, 77, C], for SDXL also [B, P].

    Gradients flow where they are wanted; nothing is remembered.
    """
    column = _Column(texts, torch.ones(len(texts)))
    encoded = _ENCODERS[components.family](components, column, TextOptions(emphasis="None"))
    return encoded.cross, encoded.pooled


def _encode_compel(
    components: Components, texts: Sequence[str], options: TextOptions
) -> list[Cond]:
    layers = _compel_layers(components.family, options)
    encoded = compel_encoding.encode(texts, components.text_encoders, shared_tokenizer(), layers)
    sizes = torch.tensor([*options.size, *options.crop, *options.size])
    return [
        Cond(each.cross, each.pooled, None if each.pooled is None else sizes.to(each.pooled))
        for each in encoded
    ]


def _compel_layers(family: Family, options: TextOptions) -> tuple[compel_encoding.ChooseLayer, ...]:
    """The states that the functions below choose, for each text encoder."""
    if family is Family.SD1:
        return (lambda encoder, s: encoder.final_norm(_from_end(s, options.clip_skip)),)
    if family is Family.SD2:
        return (lambda encoder, s: encoder.final_norm(s.hidden[-2]),)
    skip = options.clip_skip if options.sdxl_clip_l_skip else 2
    return (lambda _, s: _from_end(s, skip), lambda _, s: s.hidden[-2])


def _encode_sd1(components: Components, row: _Column, options: TextOptions) -> _Encoded:
    encoder = components.text_encoders[0]
    states = _from_end(_run(encoder, row, 0), options.clip_skip)
    return _Encoded(_emphasise(encoder.final_norm(states), row, options.emphasis))


def _encode_sd2(components: Components, row: _Column, options: TextOptions) -> _Encoded:
    encoder = components.text_encoders[0]
    states = encoder.final_norm(_run(encoder, row, 0).hidden[-2])
    return _Encoded(_emphasise(states, row, options.emphasis))


def _encode_sdxl(components: Components, row: _Column, options: TextOptions) -> _Encoded:
    first, second = components.text_encoders
    skip = options.clip_skip if options.sdxl_clip_l_skip else 2
    large = _run(second, row, 1)
    parts = (_from_end(_run(first, row, 0), skip), large.hidden[-2])
    cross = torch.cat([_emphasise(part, row, options.emphasis) for part in parts], dim=-1)
    return _Encoded(cross, large.pooled)


_Encode = Callable[[Components, _Column, TextOptions], _Encoded]
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


def _used_embeddings(rows: list[list[chunks.Chunk]]) -> tuple[Embedding, ...]:
    """In the order that encoding comes upon them: chunk by chunk, text by text."""
    placed = (each for column in zip(*rows, strict=True) for c in column for each in c.embeddings)
    return tuple({each.embedding.name: each.embedding for each in placed}.values())


def _run(encoder: TextEncoder, row: _Column, number: int) -> TextStates:
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


def _emphasise(states: Tensor, row: _Column, emphasis: str) -> Tensor:
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
