"""The CLIP tokenizer, from the vocabulary file in the `open_clip_torch` package: no download."""

import gzip
import html
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any, cast

import ftfy
from transformers import CLIPTokenizer

from sdapi.engine.text.chunks import END, START

_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_WORDS = 49_408
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_SPACES = re.compile(r"\s+")


class Tokenizer:
    """Text -> token ids, as the original CLIP does it (contract: webui-generation 2.7)."""

    def __init__(self) -> None:
        vocabulary, merges = _read_vocabulary(_find_vocabulary())
        # transformers says texts, but hands them to tokenizers, which takes pairs.
        self._tokenizer = CLIPTokenizer(vocab=vocabulary, merges=cast("list[Any]", merges))

    def __call__(self, text: str) -> list[int]:
        """Token ids without start and end, any length."""
        return list(self._tokenizer(clean(text), add_special_tokens=False, verbose=False).input_ids)

    def words(self, ids: list[int]) -> list[str]:
        """The vocabulary's words of token ids; the last of a word ends with `</w>`."""
        return cast("list[str]", self._tokenizer.convert_ids_to_tokens(ids))


@cache
def shared_tokenizer() -> Tokenizer:
    """The one tokenizer of this process; every supported model shares the vocabulary."""
    return Tokenizer()


def clean(text: str) -> str:
    """Repair mojibake, unescape HTML twice, collapse white space, lower the case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return _SPACES.sub(" ", text).strip().lower()


def _find_vocabulary() -> Path:
    # find_spec does not import the package, which would pull in torchvision.
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise RuntimeError(
            "the package open_clip_torch is not installed; it carries CLIP's vocabulary"
        )
    return Path(spec.origin).parent / _VOCABULARY


def _read_vocabulary(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    letters = _byte_letters()
    merge_count = _WORDS - 2 * len(letters) - len(_SPECIAL)
    merges = [(a, b) for a, b in (line.split() for line in lines[1 : merge_count + 1])]
    words = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    vocabulary = {word: number for number, word in enumerate((*words, *_SPECIAL))}
    if vocabulary[_SPECIAL[0]] != START or vocabulary[_SPECIAL[1]] != END:
        raise RuntimeError(f"{path.name} is not the CLIP vocabulary this version knows")
    return vocabulary, merges


def _byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes, in the order byte-level BPE numbers them.

    Printable bytes stand for themselves; the rest take the code points from 256 on (Radford et al.
    2019).
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]
