import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdapi.engine.networks.embedding_file import read_embedding
from sdapi.services.catalog.catalog import Checkpoint
from sdapi.services.catalog.create_embedding import NotCreated, create_embedding

TABLE = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    path = tmp_path / "one.safetensors"
    save_file({TABLE: torch.randn(49_408, 8)}, path)
    return Checkpoint(path, path.name, None, None)


def test_an_embedding_is_written_whole_and_what_a_dead_writer_left_is_gone(
    tmp_path: Path, checkpoint: Checkpoint
):
    folder = tmp_path / "embeddings"
    folder.mkdir()
    old, young = folder / ".sdapi-old.part", folder / ".sdapi-young.part"
    for path, age_s in ((old, 2 * 86_400), (young, 0)):
        path.touch()
        os.utime(path, (time.time() - age_s,) * 2)
    made = create_embedding(folder, checkpoint, "my/ word", 3, "a cat", overwrites=False)
    assert sorted(folder.iterdir()) == sorted([young, made])
    assert made.name == "my word.pt"
    (vectors,) = read_embedding(made).vectors
    assert vectors.shape == (3, 8)


def test_a_taken_name_is_overwritten_only_when_asked(tmp_path: Path, checkpoint: Checkpoint):
    made = create_embedding(tmp_path, checkpoint, "word", 1, "cat", overwrites=False)
    before = made.read_bytes()
    with pytest.raises(NotCreated, match="already exists"):
        create_embedding(tmp_path, checkpoint, "word", 1, "dog", overwrites=False)
    assert made.read_bytes() == before
    create_embedding(tmp_path, checkpoint, "word", 1, "dog", overwrites=True)
    assert made.read_bytes() != before
