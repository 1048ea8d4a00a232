"""Encodes prompts through the `compel` package, with the text encoders that are loaded here.

Its grammar and its weighting replace the webui's: no AND, BREAK, schedules or emphasis modes of the
webui, and embeddings are not looked for. Clip skip acts as in the webui's mode.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from sdapi.engine.text.chunks import EMPTY, END, START
from sdapi.engine.text.encoding.text_encoder import TextEncoder, TextStates
from sdapi.engine.text.grammar import compel_prompts
from sdapi.engine.text.tokenizer import Tokenizer
from sdapi.errors import BadRequest

_LENGTH = 77

#: What cross attention gets of an encoder's states: the layer that the family and clip skip choose.
ChooseLayer = Callable[[TextEncoder, TextStates], Tensor]


@dataclass(frozen=True, slots=True)
class CompelCond:
    """An encoded prompt: `cross` [T, C], `pooled` [P] where an encoder has a projection."""

    cross: Tensor
    pooled: Tensor | None


def encode(
    texts: Sequence[str],
    encoders: Sequence[TextEncoder],
    tokenizer: Tokenizer,
    choose: Sequence[ChooseLayer],
) -> list[CompelCond]:
    """Encode texts to one length, shorter ones filled with the encoding of the empty prompt.

    Raises `BadRequest` for a text that compel cannot encode.
    """
    from compel import Compel

    crosses: list[Tensor] = []
    pooled: Tensor | None = None
    for encoder, layer in zip(encoders, choose, strict=True):
        # An offloaded encoder comes to its device with a call, and compel asks where it is before.
        encoder.encode(torch.tensor([EMPTY.tokens]))
        provider = Compel(
            # Both are asked for no more than what the adapters below have.
            tokenizer=_Tokens(tokenizer, encoder.pad_token),  # pyright: ignore[reportArgumentType]
            text_encoder=_Encoder(encoder, layer),  # pyright: ignore[reportArgumentType]
            truncate_long_prompts=False,
            dtype_for_device_getter=_working_type(encoder),
            device=str(encoder.model.device),
        )
        rows = [_cross(provider, text) for text in texts]
        crosses.append(torch.cat(provider.pad_conditioning_tensors_to_same_length(rows)))
        if encoder.projection is not None:
            found = provider.conditioning_provider.get_pooled_embeddings([*texts])
            pooled = cast("Tensor", found)  # a pair only where tokens are asked for
    cross = torch.cat(crosses, dim=-1)
    rows = [None] * len(cross) if pooled is None else [*pooled]
    return [CompelCond(one, vector) for one, vector in zip(cross, rows, strict=True)]


def _cross(provider: Any, text: str) -> Tensor:
    conjunction = compel_prompts.parse(text)
    try:
        return provider.build_conditioning_tensor_for_conjunction(conjunction)[0]
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        # A weight below 1 on what has no tokens, or that tokens of neighbours swallow.
        raise BadRequest(f"prompt: compel cannot weight it: {error}") from error


def _working_type(encoder: TextEncoder) -> Callable[[torch.device], torch.dtype]:
    return lambda _: encoder.model.dtype


class _Tokens:
    """Our tokenizer with the interface that compel expects of one."""

    bos_token_id, eos_token_id, model_max_length = START, END, _LENGTH

    def __init__(self, tokenizer: Tokenizer, pad_token: int) -> None:
        self._tokenizer = tokenizer
        self.pad_token_id = pad_token

    def __call__(self, texts: Sequence[str], *, truncation: bool, **_: Any) -> dict[str, Any]:
        rows = [self._tokenizer(text) for text in texts]
        if truncation:
            rows = [row[: _LENGTH - 2] for row in rows]
        return {"input_ids": [[START, *row, END] for row in rows]}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return self._tokenizer.words(ids)


@dataclass(frozen=True, slots=True)
class _Output:
    """What compel reads of a text model's output."""

    last_hidden_state: Tensor
    text_embeds: Tensor | None


class _Encoder:
    """A text encoder with the interface that compel expects of one."""

    def __init__(self, encoder: TextEncoder, choose: ChooseLayer) -> None:
        self._encoder = encoder
        self._choose = choose

    @property
    def device(self) -> torch.device:
        return self._encoder.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self._encoder.model.dtype

    def __call__(self, tokens: Tensor, attention_mask: Tensor | None = None, **_: Any) -> _Output:
        states = self._encoder.encode(tokens, attention_mask=attention_mask)
        return _Output(self._choose(self._encoder, states), states.pooled)
