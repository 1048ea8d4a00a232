"""Embeddings in prompts: where their names match, where their vectors go, what is told of them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import load_checkpoint
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.networks.embedding_file import Embedding, make_embedding
from sdapi.engine.text.chunks import START, Placed, split_chunks
from sdapi.engine.text.cond import BatchCond
from sdapi.engine.text.conditioning import Conditioner
from sdapi.engine.text.embeddings import EmbeddingIndex
from sdapi.engine.text.grammar.schedule import Timeline
from sdapi.engine.text.notes import ti_hashes
from sdapi.engine.text.text_options import TextOptions
from sdapi.engine.text.tokenizer import shared_tokenizer
from sdapi.engine.weights.model_file import ModelFile

TOKENIZE = shared_tokenizer()
WIDTH = 64


def embedding(name: str, vectors: int = 2, width: int = WIDTH, shorthash: str = "") -> Embedding:
    torch.manual_seed(len(name))
    return make_embedding(name, {"*": torch.randn(vectors, width)}, shorthash)


def index_of(*known: Embedding) -> EmbeddingIndex:
    return EmbeddingIndex((), known, (WIDTH,), TOKENIZE)


def placed(prompt: str, *known: Embedding) -> list[tuple[Placed, ...]]:
    index, refused = index_of(*known), set[str]()
    split = split_chunks(prompt, TOKENIZE, lambda tokens, at: index.at(tokens, at, refused))
    assert all(len(chunk.tokens) == len(chunk.weights) == 77 for chunk in split)
    return [chunk.embeddings for chunk in split]


def test_name_matches_whole_tokens_in_any_letter_case():
    known = embedding("tinyti")
    assert placed("a photo of TinyTI", known) == [(Placed(4, known),)]
    assert placed("xtinytix", known) == [()]
    assert placed("tinyti, tinyti", known) == [(Placed(1, known), Placed(4, known))]


def test_longest_name_is_tried_first():
    short, long = embedding("red"), embedding("red fox")
    assert placed("a red fox", short, long) == [(Placed(2, long),)]
    assert placed("a red dog", short, long) == [(Placed(2, short),)]


def test_every_slot_has_the_fragments_weight():
    known = embedding("tinyti", vectors=3)
    index = index_of(known)
    (chunk,) = split_chunks("a (tinyti:1.5) b", TOKENIZE, lambda t, at: index.at(t, at, set()))
    assert chunk.weights[:7] == (1.0, 1.0, 1.5, 1.5, 1.5, 1.0, 1.0)
    assert chunk.tokens[2:5] == (0, 0, 0)


def test_embedding_that_does_not_fit_opens_a_chunk():
    known = embedding("tinyti", vectors=10)
    assert placed("cat " * 70 + "tinyti", known) == [(), (Placed(1, known),)]
    assert placed("cat " * 65 + "tinyti dog", known) == [(Placed(66, known),), ()]


def test_embedding_behind_the_last_comma_moves_to_the_next_chunk_with_it():
    known = embedding("tinyti")
    prompt = "cat " * 64 + ", red tinyti " + "dog " * 10
    assert placed(prompt, known) == [(), (Placed(2, known),)]


def test_unfit_embedding_is_taken_literally_and_told():
    wide = embedding("wrongdim", width=768)
    index, refused = index_of(wide), set[str]()
    (chunk,) = split_chunks(
        "a wrongdim cat", TOKENIZE, lambda tokens, at: index.at(tokens, at, refused)
    )
    assert chunk.embeddings == ()
    assert refused == {"embedding not used: wrongdim has vectors of 768, this checkpoint's have 64"}


def test_file_is_read_when_a_prompt_first_names_it(tmp_path: Path):
    good, broken = tmp_path / "good.safetensors", tmp_path / "broken.pt"
    save_file({"emb": torch.ones(1, WIDTH)}, good)
    broken.write_bytes(b"x")
    files = [ModelFile.of(good), ModelFile.of(broken)]
    index, refused = EmbeddingIndex(files, (), (WIDTH,), TOKENIZE), set[str]()
    assert index.at(TOKENIZE("good"), 0, refused)[0].name == "good"
    assert refused == set()
    assert index.at(TOKENIZE("broken"), 0, refused) is None
    assert refused == {"embedding not used: broken.pt: not a PyTorch file"}


@pytest.fixture(scope="module")
def conditioner(golden: Path) -> Conditioner:
    models = golden / "models"
    precision = Precision(torch.float32, torch.float32)
    loaded = load_checkpoint(models / "tinyA.safetensors", models / "tinyA.yaml", precision)
    return Conditioner(loaded)


def encode(conditioner: Conditioner, prompt: str, negative: str = "") -> BatchCond:
    return conditioner.batch((prompt,), (negative,), Timeline(4), TextOptions())


def cross(cond: BatchCond) -> Tensor:
    return cond.positive[0][0].schedule.at(0).cross


def test_vectors_of_a_words_own_row_encode_as_the_word(conditioner: Conditioner):
    (token,) = TOKENIZE("cat")
    table = conditioner._components.text_encoders[0].model.embeddings.token_embedding.weight
    known = make_embedding("tinyti", {"*": table[token].clone()}, "abc")
    conditioner.use_embeddings((), ())
    plain = cross(encode(conditioner, "a photo of a cat"))
    literal = cross(encode(conditioner, "a photo of a tinyti"))
    conditioner.use_embeddings((), (known,))
    found = cross(encode(conditioner, "a photo of a tinyti"))
    assert torch.equal(found, plain)
    assert not torch.allclose(found, literal)
    conditioner.use_embeddings((), ())
    assert torch.equal(cross(encode(conditioner, "a photo of a tinyti")), literal)
    assert TOKENIZE("a")[0] != START


def test_later_texts_embeddings_stand_first_and_both_uses_are_told(conditioner: Conditioner):
    """As recorded: `tinyti and tinyti2` against `tinyti`."""
    one, two = embedding("tinyti", shorthash="e9ff43b10ad9"), embedding("tinyti2", shorthash="f2")
    conditioner.use_embeddings((), (one, two))
    cond = encode(conditioner, "tinyti and tinyti2", "tinyti")
    assert ti_hashes(cond.notes) == "tinyti: e9ff43b10ad9, tinyti2: f2, tinyti: e9ff43b10ad9"
    assert ti_hashes(encode(conditioner, "cat").notes) == ""


def test_encodings_of_a_former_state_of_the_weights_are_found_again(conditioner: Conditioner):
    conditioner.use_embeddings((), ())
    conditioner.use_weights("one")
    first = cross(encode(conditioner, "a cat"))
    conditioner.use_weights("two")
    assert cross(encode(conditioner, "a cat")) is not first
    conditioner.use_weights("one")
    assert cross(encode(conditioner, "a cat")).data_ptr() == first.data_ptr()
    conditioner.use_weights(())
