"""Many wordings for every picture, as tokens: training picks one in no time."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tools.demo_model.networks.tokens import encode, make_tokenizer
from tools.demo_model.pictures.captions import caption_nothing
from tools.demo_model.pictures.dataset import TRAIN, caption, draw_sample

_CHUNK = 500
_STREAM = 50


@dataclass(frozen=True, slots=True)
class Wordings:
    """Tokens of captions [pictures, wordings, 77], and of such that say nothing [wordings, 77]."""

    captions: Tensor
    nothing: Tensor

    def choose(self, numbers: Tensor, drop: float, random: torch.Generator) -> Tensor:
        """Tokens [N, 77] for pictures, a share of them saying nothing.

        `random` and `numbers` are on the CPU; the tokens are where the captions are.
        """
        count, device = len(numbers), self.captions.device
        which = torch.randint(self.captions.shape[1], (count,), generator=random)
        other = torch.randint(len(self.nothing), (count,), generator=random)
        is_dropped = torch.rand(count, generator=random) < drop
        named = self.captions[numbers.to(device), which.to(device)]
        unnamed = self.nothing[other.to(device)]
        return torch.where(is_dropped.to(device)[:, None], unnamed, named).long()


def cached_wordings(folder: Path, pictures: int, wordings: int, workers: int) -> Wordings:
    """The wordings of the training pictures 0..pictures-1, made once for each folder."""
    path = folder / f"wordings_{pictures}_{wordings}.npz"
    if not path.exists():
        starts = range(0, pictures, _CHUNK)
        with ProcessPoolExecutor(max(workers, 1)) as pool:
            parts = list(pool.map(partial(_captions, pictures, wordings), starts))
        rng = np.random.default_rng([_STREAM, 2**31])
        nothing = _tokens([caption_nothing(rng) for _ in range(_CHUNK)])
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft.npz")
        np.savez(draft, captions=np.concatenate(parts), nothing=nothing)
        draft.replace(path)
    with np.load(path) as found:
        return Wordings(*(torch.from_numpy(found[n].astype(np.int32)) for n in found.files))


def _captions(pictures: int, wordings: int, start: int) -> NDArray[np.uint16]:
    texts: list[str] = []
    numbers = range(start, min(start + _CHUNK, pictures))
    for number in numbers:
        sample, rng = draw_sample(TRAIN, number), np.random.default_rng([_STREAM, number])
        texts += [caption(sample, rng) for _ in range(wordings)]
    return _tokens(texts).reshape(len(numbers), wordings, -1)


def _tokens(texts: list[str]) -> NDArray[np.uint16]:
    return encode(make_tokenizer(), texts).numpy().astype(np.uint16)
