"""Making an embedding file to be trained: vectors copied from the words of a text."""

import io
from pathlib import Path

import torch
from torch import Tensor

from sdapi.engine.text.tokenizer import shared_tokenizer
from sdapi.engine.weights.state_dict import read_state_dict
from sdapi.errors import ModelUnusable

_TOKEN_TABLE = "token_embedding.weight"
#: the token that old trainers put an embedding in the place of
_PLACEHOLDER_TOKEN = 265


def new_embedding(checkpoint: Path, count: int, text: str) -> Tensor:
    """Vectors [count, C] for a checkpoint: those of the text's tokens, spread over the count.

    Vector i is that of token `i * tokens // count`; an empty text gives zeros. Raises
    `ModelUnusable` for a checkpoint without exactly one text encoder.
    """
    tables = [
        tensor for key, tensor in read_state_dict(checkpoint).items() if key.endswith(_TOKEN_TABLE)
    ]
    if len(tables) != 1:
        raise ModelUnusable(
            f"{checkpoint.name}: an embedding can be made for a checkpoint with one text encoder, "
            f"and this one has {len(tables)}"
        )
    table = tables[0].float()
    ids = shared_tokenizer()(text)
    if not ids:
        return torch.zeros(count, table.shape[1])
    return torch.stack([table[ids[i * len(ids) // count]] for i in range(count)])


def embedding_file(name: str, vectors: Tensor) -> bytes:
    """The bytes of a file that keeps vectors as trainers do."""
    content = {
        "string_to_token": {"*": _PLACEHOLDER_TOKEN},
        "string_to_param": {"*": vectors},
        "name": name,
        "step": 0,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }
    data = io.BytesIO()
    torch.save(content, data)
    return data.getvalue()
