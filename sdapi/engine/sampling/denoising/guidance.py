"""Classifier-free guidance over scheduled, weighted prompts, and what saves some of its work.

Contract: webui-generation 7, webui-scripts 19.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor

from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.text.cond import BatchCond, Cond

#: How conds and unconds of different lengths are made equal: not at all, with the encoding of the
#: empty prompt (`pad_cond_uncond`), by repeating or cutting the negative (`pad_cond_uncond_v0`).
Padding = Literal["none", "empty", "repeat"]
#: Tokens of one encoded chunk.
_CHUNK = 77
_PADDING_KEYS: dict[Padding, str] = {"empty": "Pad conds", "repeat": "Pad conds v0"}


class Stopped(Exception):
    """Sampling was interrupted; carries the last predicted picture, None before the first step."""

    def __init__(self, latent: Tensor | None) -> None:
        super().__init__()
        self.latent = latent


@dataclass(frozen=True, slots=True)
class Economy:
    """The calls at which the negative prompt is not evaluated; 0 means none."""

    #: `s_min_uncond`: at lower noise levels, every other call
    min_level: float = 0.0
    #: `s_min_uncond_all`: there at every call
    at_all_calls: bool = False
    #: `skip_early_cond`: up to this share of the planned calls
    early_share: float = 0.0
    planned_calls: int = 1


@dataclass(frozen=True, slots=True)
class Guidance:
    """How strongly, and how, the conds steer."""

    cfg_scale: float
    #: evaluate conds and unconds in one UNet call when their lengths agree
    batch_cond_uncond: bool = True
    padding: Padding = "none"
    economy: Economy = field(default_factory=Economy)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a UNet batch: the image it works on, its cond, the cond's weight in the sum."""

    image: int
    cond: Cond
    weight: float = 1.0
    #: False hides the picture that an instruct-pix2pix checkpoint edits
    sees_picture: bool = True
    #: of the negative prompt
    is_uncond: bool = False

    @property
    def length(self) -> int:
        """Tokens of the cond."""
        return self.cond.cross.shape[0]


#: What a model makes of rows of latents: (x [N, C, h, w], rows) -> [N, C, h, w].
Inner = Callable[[Tensor, Sequence[Row]], Tensor]


class Guide:
    """Classifier-free guidance (Ho and Salimans 2022) over the prompts in force at each call."""

    def __init__(
        self, cond: BatchCond, guidance: Guidance, monitor: Monitor, extra: dict[str, Any]
    ) -> None:
        #: a refiner brings its own
        self.cond = cond
        self._guidance = guidance
        self._monitor = monitor
        #: infotext keys that come up
        self._extra = extra
        self._latest: Tensor | None = None
        self._padded: Padding = "none"
        #: the latest output without guidance
        self.uncond: Tensor | None = None
        #: denoiser calls so far
        self.calls = 0

    def __call__(self, x: Tensor, level: float, inner: Inner) -> Tensor:
        """Evaluate `inner` for conds and unconds of latents `x` [B, C, h, w] and combine.

        `level` is the sampler's measure of noise: sigma, or the time step. Raises `Stopped` when
        the monitor says so.
        """
        if self._monitor.should_stop:
            raise Stopped(self._latest)
        conds, unconds = self._pad(self._cond_rows(), self._uncond_rows())
        skips = self._skips_uncond(level)
        rows = conds if skips else [*conds, *unconds]
        outputs = self._evaluate(x, rows, inner)
        if skips:
            self.uncond = torch.stack([outputs[i] for i in _first_rows(conds)])
            combined = _combine(self.uncond, conds, outputs, 1.0)
        else:
            self.uncond = torch.stack(outputs[len(conds) :])
            combined = _combine(self.uncond, conds, outputs, self._guidance.cfg_scale)
        self.calls += 1
        return combined

    def remember(self, predicted: Tensor) -> None:
        """Keep the latest predicted picture: what a stopped job answers with."""
        self._latest = predicted
        self._monitor.latent = predicted

    def finish(self) -> None:
        """Sampling is over: tell how the last call's conds were padded."""
        if self._padded != "none":
            self._extra[_PADDING_KEYS[self._padded]] = True

    def _skips_uncond(self, level: float) -> bool:
        economy = self._guidance.economy
        if economy.early_share > 0 and self.calls / economy.planned_calls <= economy.early_share:
            self._extra["Skip Early CFG"] = economy.early_share
            return True
        if (self.calls % 2 or economy.at_all_calls) and level < economy.min_level:
            self._extra["NGMS"] = economy.min_level
            if economy.at_all_calls:
                self._extra["NGMS all steps"] = True
            return True
        return False

    def _cond_rows(self) -> list[Row]:
        rows = [
            Row(image, part.schedule.at(self.calls), part.weight)
            for image, parts in enumerate(self.cond.positive)
            for part in parts
        ]
        return _lengthened(rows)

    def _uncond_rows(self) -> list[Row]:
        rows = [
            Row(image, schedule.at(self.calls), is_uncond=True)
            for image, schedule in enumerate(self.cond.negative)
        ]
        return _lengthened(rows)

    def _pad(self, conds: list[Row], unconds: list[Row]) -> tuple[list[Row], list[Row]]:
        wanted, length = self._guidance.padding, conds[0].length
        self._padded = "none" if length == unconds[0].length else wanted
        if self._padded == "repeat":
            unconds = [replace(row, cond=_stretched(row.cond, length)) for row in unconds]
        elif self._padded == "empty":
            assert self.cond.empty is not None
            missing = (length - unconds[0].length) // _CHUNK
            if missing > 0:
                unconds = [_filled(row, self.cond.empty, missing) for row in unconds]
            else:
                conds = [_filled(row, self.cond.empty, -missing) for row in conds]
        return conds, unconds

    def _evaluate(self, x: Tensor, rows: list[Row], inner: Inner) -> list[Tensor]:
        """Calls of `inner`, each for conds of equal length; results in the order of `rows`.

        How many rows a call takes follows the reference; results do not depend on it.
        """
        groups = [list(group) for _, group in groupby(rows, key=lambda row: row.length)]
        at_once = len(x)
        if self._guidance.batch_cond_uncond:
            at_once = len(rows) if len(groups) == 1 else 2 * len(x)
        outputs: list[Tensor] = []
        for group in groups:
            for first in range(0, len(group), at_once):
                part = group[first : first + at_once]
                # not by a list of indexes, for which a GPU waits
                latents = torch.stack([x[row.image] for row in part])
                outputs += inner(latents, part).unbind()
        return outputs


def _first_rows(conds: list[Row]) -> list[int]:
    """The index of every image's first row."""
    return [i for i, row in enumerate(conds) if i == 0 or conds[i - 1].image != row.image]


def _combine(uncond: Tensor, conds: list[Row], outputs: list[Tensor], scale: float) -> Tensor:
    combined = uncond.clone()
    for row, output in zip(conds, outputs, strict=False):
        combined[row.image] += (output - uncond[row.image]) * (row.weight * scale)
    return combined


def _lengthened(rows: list[Row]) -> list[Row]:
    """The shorter conds of a batch as long as its longest."""
    longest = max(row.length for row in rows)
    return [replace(row, cond=_stretched(row.cond, longest)) for row in rows]


def _stretched(cond: Cond, length: int) -> Cond:
    """A cond of a length: its last vector repeated, or what is too much cut off."""
    missing = length - cond.cross.shape[0]
    if missing <= 0:
        return cond if missing == 0 else replace(cond, cross=cond.cross[:length])
    return replace(cond, cross=torch.cat([cond.cross, cond.cross[-1:].expand(missing, -1)]))


def _filled(row: Row, empty: Cond, count: int) -> Row:
    """A row with copies of the empty prompt's encoding behind its cond."""
    cross = torch.cat([row.cond.cross, *[empty.cross] * count])
    return replace(row, cond=replace(row.cond, cross=cross))
