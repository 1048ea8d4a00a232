"""Encoded prompts as values: for one text, for every step, for every picture of a batch."""

from dataclasses import dataclass, field

from torch import Tensor

from sdapi.engine.text.notes import TextNotes
from sdapi.engine.weights.tensor_bytes import bytes_of


@dataclass(frozen=True, slots=True)
class Cond:
    """One encoded text: `cross` [T, C] for cross attention; for SDXL `pooled` [P], `sizes` [6]."""

    cross: Tensor
    pooled: Tensor | None = None
    #: original size, crop, target size, each (height, width), pixels
    sizes: Tensor | None = None

    @property
    def size_bytes(self) -> int:
        tensors = (self.cross, self.pooled, self.sizes)
        return bytes_of(t for t in tensors if t is not None)


@dataclass(frozen=True, slots=True)
class CondSchedule:
    """Encoded texts in step order: `(end_step, cond)`."""

    entries: tuple[tuple[int, Cond], ...]
    notes: TextNotes = field(default_factory=TextNotes)

    def at(self, call: int) -> Cond:
        """The cond at a 0-based denoiser call; an entry holds through its end step, inclusive."""
        for end_step, cond in self.entries:
            if call <= end_step:
                return cond
        return self.entries[-1][1]


@dataclass(frozen=True, slots=True)
class WeightedCond:
    """One part of an AND composition over the steps."""

    schedule: CondSchedule
    weight: float


@dataclass(frozen=True, slots=True)
class BatchCond:
    """Conditioning of a batch: for each image its AND parts and its negative."""

    positive: tuple[tuple[WeightedCond, ...], ...]
    negative: tuple[CondSchedule, ...]
    #: the encoding of the empty prompt, where conds are padded with it
    empty: Cond | None = None

    @property
    def notes(self) -> tuple[TextNotes, ...]:
        """Of each text that was encoded, negative ones first."""
        positive = (part.schedule for parts in self.positive for part in parts)
        # Equal texts share a schedule.
        distinct = {id(each): each for each in (*self.negative, *positive)}
        return tuple(each.notes for each in distinct.values())
