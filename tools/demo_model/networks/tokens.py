"""CLIP's byte-pair tokenizer, built from the vocabulary file that ships with open_clip."""

import gzip
import importlib.util
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from tools.demo_model.networks.models import TOKENS

_MERGES = 49152 - 256 - 2  # as many of the file's merges as CLIP uses


def vocabulary_path() -> Path:
    """Where open_clip keeps the file; the package itself need not be importable."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("training needs the package open_clip_torch for its vocabulary")
    return Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"


def _byte_symbols() -> list[str]:
    """The printable stand-ins that CLIP's vocabulary uses for the 256 bytes, in its order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    plain += range(ord("®"), ord("ÿ") + 1)
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def make_tokenizer() -> CLIPTokenizer:
    """Symbols, symbols that end a word, merges and the two marks, numbered in that order."""
    lines = gzip.decompress(vocabulary_path().read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
    symbols = _byte_symbols()
    entries = symbols + [s + "</w>" for s in symbols] + ["".join(pair) for pair in merges]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {entry: number for number, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=TOKENS)


def encode(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token numbers [N, 77], ended and padded with the end mark as SD 1 does."""
    found = tokenizer(
        texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    )
    return torch.as_tensor(found["input_ids"])
