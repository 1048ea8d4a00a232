"""Weighted fragments -> chunks of 75 tokens, each framed to the 77 that a text encoder reads."""

from collections.abc import Callable
from dataclasses import dataclass

from sdapi.engine.text.attention import Fragment, parse_attention

CHUNK_TOKENS = 75
START, END = 49406, 49407
COMMA = 267


@dataclass(frozen=True, slots=True)
class Chunk:
    """77 token ids and the weight of each; start, end and padding weigh 1."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]


def framed(tokens: list[int], weights: list[float]) -> Chunk:
    """Pad up to 75 with end tokens, and add start and end."""
    missing = CHUNK_TOKENS - len(tokens)
    return Chunk(
        (START, *tokens, *(END,) * (missing + 1)),
        (1.0, *weights, *(1.0,) * (missing + 1)),
    )


EMPTY = framed([], [])


def split_chunks(
    prompt: str,
    tokenize: Callable[[str], list[int]],
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
            for token in tokenize(fragment.text):
                builder.add(token, fragment.weight)
    return builder.finish()


class _Builder:
    def __init__(self, comma_backtrack: int) -> None:
        self.comma_backtrack = comma_backtrack
        self.chunks: list[Chunk] = []
        self.tokens: list[int] = []
        self.weights: list[float] = []
        #: where the last comma of the open chunk stands
        self.comma: int | None = None

    def add(self, token: int, weight: float) -> None:
        if token == COMMA:
            self.comma = len(self.tokens)
        elif self._is_full and self.comma is not None and self._comma_is_near(self.comma):
            cut = self.comma + 1
            moved = self.tokens[cut:], self.weights[cut:]
            self.tokens, self.weights = self.tokens[:cut], self.weights[:cut]
            self.close()
            self.tokens, self.weights = moved
        if self._is_full:
            self.close()
        self.tokens.append(token)
        self.weights.append(weight)

    @property
    def _is_full(self) -> bool:
        return len(self.tokens) == CHUNK_TOKENS

    def _comma_is_near(self, comma: int) -> bool:
        return self.comma_backtrack != 0 and CHUNK_TOKENS - comma <= self.comma_backtrack

    def close(self) -> None:
        self.chunks.append(framed(self.tokens, self.weights))
        self.tokens, self.weights, self.comma = [], [], None

    def finish(self) -> list[Chunk]:
        if self.tokens or not self.chunks:
            self.close()
        return self.chunks
