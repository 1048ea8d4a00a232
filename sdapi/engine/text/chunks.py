"""Weighted fragments -> chunks of 75 tokens, each framed to the 77 that a text encoder reads."""

from collections.abc import Callable
from dataclasses import dataclass

from sdapi.engine.networks.embedding_file import Embedding
from sdapi.engine.text.grammar.attention import Fragment, parse_attention

CHUNK_TOKENS = 75
START, END = 49406, 49407
COMMA = 267
#: stands where the vectors of an embedding go
PLACEHOLDER = 0

#: The embedding whose name stands at a position of some tokens, and the name's length.
FindEmbedding = Callable[[list[int], int], tuple[Embedding, int] | None]


@dataclass(frozen=True, slots=True)
class Placed:
    """An embedding in a chunk; `offset` is that of its first vector among the 77."""

    offset: int
    embedding: Embedding


@dataclass(frozen=True, slots=True)
class Chunk:
    """77 token ids and the weight of each; start, end and padding weigh 1."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    embeddings: tuple[Placed, ...] = ()


def framed(tokens: list[int], weights: list[float], embeddings: tuple[Placed, ...] = ()) -> Chunk:
    """Pad up to 75 with end tokens, and add start and end."""
    missing = CHUNK_TOKENS - len(tokens)
    return Chunk(
        (START, *tokens, *(END,) * (missing + 1)),
        (1.0, *weights, *(1.0,) * (missing + 1)),
        embeddings,
    )


EMPTY = framed([], [])


def _no_embedding(tokens: list[int], position: int) -> None:
    return None


def split_chunks(
    prompt: str,
    tokenize: Callable[[str], list[int]],
    find_embedding: FindEmbedding = _no_embedding,
    *,
    comma_backtrack: int = 20,
    use_emphasis: bool = True,
) -> list[Chunk]:
    """Tokenise a prompt into at least one chunk (contract: webui-generation 2.7).

    A chunk that fills up moves what follows its last comma, up to `comma_backtrack` tokens, to the
    next one. `use_emphasis` False takes brackets and BREAK literally.
    """
    fragments = parse_attention(prompt) if use_emphasis else [Fragment(prompt, 1.0)]
    builder = _Builder(comma_backtrack)
    for fragment in fragments:
        if fragment.is_break:
            builder.close()
        else:
            _add_fragment(builder, tokenize(fragment.text), fragment.weight, find_embedding)
    return builder.finish()


def _add_fragment(
    builder: "_Builder", tokens: list[int], weight: float, find_embedding: FindEmbedding
) -> None:
    position = 0
    while position < len(tokens):
        builder.make_room(tokens[position])
        found = find_embedding(tokens, position)
        if found is None:
            builder.add(tokens[position], weight)
            position += 1
        else:
            builder.add_embedding(found[0], weight)
            position += found[1]


class _Builder:
    def __init__(self, comma_backtrack: int) -> None:
        self.comma_backtrack = comma_backtrack
        self.chunks: list[Chunk] = []
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.embeddings: list[Placed] = []
        #: where the last comma of the open chunk stands
        self.comma: int | None = None

    def make_room(self, token: int) -> None:
        """Begin another chunk when this one cannot take `token`, whatever it turns out to be."""
        if token == COMMA:
            self.comma = len(self.tokens)
        elif self._is_full and self.comma is not None and self._comma_is_near(self.comma):
            self._move_on_from(self.comma + 1)
        if self._is_full:
            self.close()

    def add(self, token: int, weight: float) -> None:
        self.tokens.append(token)
        self.weights.append(weight)

    def add_embedding(self, embedding: Embedding, weight: float) -> None:
        count = len(embedding)
        if len(self.tokens) + count > CHUNK_TOKENS:
            self.close()
        self.embeddings.append(Placed(len(self.tokens) + 1, embedding))
        self.tokens += [PLACEHOLDER] * count
        self.weights += [weight] * count

    def _move_on_from(self, cut: int) -> None:
        """Close the chunk before `cut`; the rest opens the next one."""
        rest = [each for each in self.embeddings if each.offset > cut]
        moved = self.tokens[cut:], self.weights[cut:]
        self.tokens, self.weights = self.tokens[:cut], self.weights[:cut]
        self.embeddings = [each for each in self.embeddings if each.offset <= cut]
        self.close()
        self.tokens, self.weights = moved
        self.embeddings = [Placed(each.offset - cut, each.embedding) for each in rest]

    @property
    def _is_full(self) -> bool:
        return len(self.tokens) == CHUNK_TOKENS

    def _comma_is_near(self, comma: int) -> bool:
        return self.comma_backtrack != 0 and CHUNK_TOKENS - comma <= self.comma_backtrack

    def close(self) -> None:
        self.chunks.append(framed(self.tokens, self.weights, tuple(self.embeddings)))
        self.tokens, self.weights, self.embeddings, self.comma = [], [], [], None

    def finish(self) -> list[Chunk]:
        if self.tokens or not self.chunks:
            self.close()
        return self.chunks
