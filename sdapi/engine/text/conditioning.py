"""Prompts -> what conditions the UNet, for every step (contract: webui-generation 2 and 3)."""

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence

import torch

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.networks.embedding_file import Embedding
from sdapi.engine.text import chunks
from sdapi.engine.text.cond import BatchCond, Cond, CondSchedule, WeightedCond
from sdapi.engine.text.embeddings import EmbeddingIndex
from sdapi.engine.text.encoding import compel_encoding
from sdapi.engine.text.encoding.chunk_encoding import Column, compel_layers, encode_column
from sdapi.engine.text.grammar.composition import split_and
from sdapi.engine.text.grammar.schedule import (
    Timeline,
    depends_on_scheduling,
    schedule,
)
from sdapi.engine.text.notes import TextNotes
from sdapi.engine.text.text_options import TextOptions
from sdapi.engine.text.tokenizer import shared_tokenizer
from sdapi.engine.weights.model_file import ModelFile

_CACHE_BYTES = 256 << 20


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
                has_brackets=any(sign in text for text in counts for sign in "(["),
                depends_on_scheduling=depends_on_scheduling(prompt, timeline),
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
        shares = torch.tensor([float(count) for count in counts.values()])
        parts = [
            encode_column(self._components, Column([row[i] for row in rows], shares), options)
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


def _encode_compel(
    components: Components, texts: Sequence[str], options: TextOptions
) -> list[Cond]:
    layers = compel_layers(components.family, options)
    encoded = compel_encoding.encode(texts, components.text_encoders, shared_tokenizer(), layers)
    sizes = torch.tensor([*options.size, *options.crop, *options.size])
    return [
        Cond(each.cross, each.pooled, None if each.pooled is None else sizes.to(each.pooled))
        for each in encoded
    ]


def _used_embeddings(rows: list[list[chunks.Chunk]]) -> tuple[Embedding, ...]:
    """In the order that encoding comes upon them: chunk by chunk, text by text."""
    placed = (each for column in zip(*rows, strict=True) for c in column for each in c.embeddings)
    return tuple({each.embedding.name: each.embedding for each in placed}.values())
