"""Tags of a picture by DeepDanbooru's "resnet custom v3", as the webui keeps it in one `.pt` file.

The file is a dictionary: `tags`, a list of names, and `n_Conv_<number>.weight` and `.bias` of 179
convolutions, which have swallowed their batch norms. Contract: webui-api 11.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Self, cast

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional

from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.state_dict import StateDict, read_content
from sdapi.errors import ModelUnusable
from sdapi.images import CONTAIN, resize_image

_SIDE: Final = 512
#: bottleneck blocks of each stage, and its channels as multiples of the first convolution's
_BLOCKS: Final = (3, 8, 20, 20, 3, 3)
_WIDTHS: Final = (4, 8, 16, 16, 32, 64)
#: the stage whose shortcut is numbered after the convolutions beside it
_LATE_SHORTCUT: Final = 3
_RATING: Final = "rating:"
_SPECIAL: Final = re.compile(r"([\\()])")


@dataclass(frozen=True, slots=True)
class TagOptions:
    """The server's `deepbooru_*` options and their kin."""

    threshold: float = 0.5
    sorts_by_name: bool = True
    uses_spaces: bool = True
    escapes: bool = True
    #: names that are never told, with underscores
    filtered: frozenset[str] = frozenset()
    shows_ranks: bool = False


@dataclass(frozen=True, slots=True)
class TagModel:
    """A network with the names of what it finds."""

    network: "TagNetwork"
    tags: tuple[str, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a model, float32 on the CPU; raises `ModelUnusable` naming the file."""
        content = read_content(path)
        if not isinstance(content, dict):
            raise ModelUnusable(f"{path.name}: holds no dictionary of tensors")
        entries = cast("dict[str, object]", content)
        tags = entries.get("tags")
        first, last = entries.get("n_Conv_0.weight"), entries.get("n_Conv_178.weight")
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise ModelUnusable(f"{path.name}: holds no list of tags")
        if not isinstance(first, Tensor) or not isinstance(last, Tensor) or len(last) != len(tags):
            raise ModelUnusable(f"{path.name}: is no DeepDanbooru model, or not of its tags")
        with torch.device("meta"):
            network = TagNetwork(len(first), len(tags))
        weights: StateDict = {k: v for k, v in entries.items() if isinstance(v, Tensor)}
        assign(network, weights, path.name, torch.float32)
        return cls(network.eval(), tuple(cast("list[str]", tags)))

    def describe(self, image: Image, options: TagOptions) -> str:
        """The tags that are likely enough, but for ratings, joined by commas."""
        picture = resize_image(image.convert("RGB"), CONTAIN, (_SIDE, _SIDE))
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)
        with torch.inference_mode():
            shares = self.network(pixels.permute(2, 0, 1)[None])[0].tolist()
        return told_tags(dict(zip(self.tags, shares, strict=True)), options)


def told_tags(shares: dict[str, float], options: TagOptions) -> str:
    """Tags with their probabilities as a text."""
    likely = {
        tag: share
        for tag, share in shares.items()
        if share >= options.threshold
        and not tag.startswith(_RATING)
        and tag not in options.filtered
    }
    order = sorted(likely) if options.sorts_by_name else sorted(likely, key=lambda t: -likely[t])
    return ", ".join(_told(tag, likely[tag], options) for tag in order)


def _told(tag: str, share: float, options: TagOptions) -> str:
    if options.uses_spaces:
        tag = tag.replace("_", " ")
    if options.escapes:
        tag = _SPECIAL.sub(r"\\\1", tag)
    return f"({tag}:{share:.3f})" if options.shows_ranks else tag


class TagNetwork(nn.Module):
    """A residual network of bottleneck blocks (He et al. 2015) that ends in one share a tag.

    `width` is the channels of its first convolution, 64 in the published model. Edges are padded as
    TensorFlow does: of an odd number of pixels the larger half comes after.
    """

    def __init__(self, width: int, tags: int) -> None:
        super().__init__()
        numbers = count()
        self._first = self._conv(numbers, 3, width, 7, 2)
        self._blocks: list[_Block] = []
        channels = width
        for stage, (blocks, factor) in enumerate(zip(_BLOCKS, _WIDTHS, strict=True)):
            wide, stride = width * factor, 1 if stage == 0 else 2
            self._blocks.append(self._stage_begin(numbers, stage, channels, wide, stride))
            self._blocks += [_Block(self._path(numbers, wide, wide, 1)) for _ in range(blocks - 1)]
            channels = wide
        self._last = self._conv(numbers, channels, tags, 1, 1, bias=False)

    def _conv(
        self,
        numbers: "count[int]",
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        *,
        bias: bool = True,
    ) -> str:
        """The name of a new convolution."""
        name = f"n_Conv_{next(numbers)}"
        self.add_module(name, nn.Conv2d(inputs, outputs, size, stride, bias=bias))
        return name

    def _path(
        self, numbers: "count[int]", inputs: int, outputs: int, stride: int
    ) -> tuple[str, str, str]:
        inner = outputs // 4
        return (
            self._conv(numbers, inputs, inner, 1, 1),
            self._conv(numbers, inner, inner, 3, stride),
            self._conv(numbers, inner, outputs, 1, 1),
        )

    def _stage_begin(
        self, numbers: "count[int]", stage: int, inputs: int, outputs: int, stride: int
    ) -> "_Block":
        if stage == _LATE_SHORTCUT:
            path = self._path(numbers, inputs, outputs, stride)
            return _Block(path, self._conv(numbers, inputs, outputs, 1, stride))
        shortcut = self._conv(numbers, inputs, outputs, 1, stride)
        return _Block(self._path(numbers, inputs, outputs, stride), shortcut)

    def forward(self, pixels: Tensor) -> Tensor:
        """The shares [B, tags] in pictures [B, 3, 512, 512] of 0 to 1."""
        x = functional.relu(self._run(self._first, functional.pad(pixels, (2, 3, 2, 3))))
        x = functional.pad(x, (0, 1, 0, 1), value=float("-inf"))
        x = functional.max_pool2d(x, 3, 2)
        for block in self._blocks:
            x = self._run_block(block, x)
        return self._run(self._last, x).mean(dim=(2, 3)).sigmoid()

    def _run_block(self, block: "_Block", x: Tensor) -> Tensor:
        narrow, spatial, wide = block.path
        inner = functional.relu(self._run(narrow, x))
        is_strided = self._module(spatial).stride[0] > 1
        inner = functional.pad(inner, (0, 1, 0, 1) if is_strided else (1, 1, 1, 1))
        inner = functional.relu(self._run(spatial, inner))
        kept = x if block.shortcut is None else self._run(block.shortcut, x)
        return functional.relu(self._run(wide, inner) + kept)

    def _module(self, name: str) -> nn.Conv2d:
        return cast("nn.Conv2d", self.get_submodule(name))

    def _run(self, name: str, x: Tensor) -> Tensor:
        return self._module(name)(x)


@dataclass(frozen=True, slots=True)
class _Block:
    """A residual block: its convolutions by name, 1x1, 3x3 and 1x1."""

    path: Sequence[str]
    #: a convolution in place of what is kept as it is
    shortcut: str | None = None
