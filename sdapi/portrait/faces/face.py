"""What a face is here, and what finds, measures and cuts it out: the provider interfaces.

Pictures are RGB bytes `[H, W, 3]`, C-contiguous; points are `[N, 2]` in pixels, x before y; masks
are `[H, W]` in 0..1. "Left" is the picture's left, not the person's.
"""

from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Points = NDArray[np.float32]
Mask = NDArray[np.float32]
Embedding = NDArray[np.float32]
#: left, top, right, bottom
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class About:
    """Which provider this is, for the status page and for the records of trained models."""

    name: str
    version: str
    licence: str


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face in a picture; points that no provider has looked for are None."""

    box: Box
    score: float
    eyes: Points  # [2, 2] centres, the left one first
    points68: Points | None = None  # in the order of iBUG's 300-W
    mesh: Points | None = None  # [468, 2]

    @property
    def width(self) -> float:
        """Of the box, in pixels."""
        return self.box[2] - self.box[0]


@dataclass(frozen=True, slots=True)
class Look:
    """How closely a detector looks at a picture."""

    #: the picture's longer side while it looks; smaller pictures stay as they are
    side: int
    #: whether it looks for small faces also where it has found larger ones
    finds_small: bool = False

    def scale(self, rgb: Pixels) -> float:
        """From the picture's pixels to those that are looked at."""
        return min(self.side / max(rgb.shape[:2]), 1.0)


USUAL: Final = Look(1024)
#: where several people are expected, none of whom may be missed (contract: portrait-pipeline 8.1)
GROUP: Final = Look(1600, finds_small=True)


class FaceError(Exception):
    """A provider could not do its work on this picture."""


class Detector(Protocol):
    """Finds faces."""

    @property
    def about(self) -> About:
        """Which provider this is."""
        ...

    def detect(self, rgb: Pixels, look: Look = USUAL) -> list[Face]:
        """Every face, from left to right by the left edge of its box."""
        ...


class Landmarks(Protocol):
    """Finds the points of a face."""

    @property
    def about(self) -> About:
        """Which provider this is."""
        ...

    def locate(self, rgb: Pixels, face: Face) -> Face:
        """The same face with `points68`, and `mesh` where the provider has one."""
        ...


class Embedder(Protocol):
    """Turns a located face into a vector that is near for one person and far for two.

    Vectors of different providers are never compared.
    """

    @property
    def about(self) -> About:
        """Which provider this is."""
        ...

    @property
    def metric(self) -> Literal["l2", "cosine"]:
        """How two vectors are compared."""
        ...

    @property
    def same(self) -> float:
        """The largest distance between pictures of one person, in the metric's measure."""
        ...

    def embed(self, rgb: Pixels, face: Face) -> Embedding:
        """The face's vector; raises FaceError without `points68`."""
        ...


class Matting(Protocol):
    """Cuts a person out of the background."""

    @property
    def about(self) -> About:
        """Which provider this is."""
        ...

    def alpha(self, rgb: Pixels, face: Face) -> Mask:
        """How much of each pixel belongs to the person."""
        ...


class Parser(Protocol):
    """Tells the regions of a face apart."""

    @property
    def about(self) -> About:
        """Which provider this is."""
        ...

    def parse(self, rgb: Pixels, face: Face) -> dict[str, Mask]:
        """Masks by region: skin brows eyes glasses ears nose mouth lips neck cloth hair hat."""
        ...


class Swapper(Protocol):
    """Puts a person's face in the place of another."""

    @property
    def about(self) -> About:
        """Which provider this is."""
        ...

    def swap(self, target: Pixels, target_face: Face, source: Pixels, source_face: Face) -> Pixels:
        """The target with the source's face at full strength; both faces are located.

        Raises FaceError.
        """
        ...


def distance(a: Embedding, b: Embedding, metric: Literal["l2", "cosine"]) -> float:
    """How far two vectors are apart: Euclid's distance, or one minus the cosine."""
    if metric == "l2":
        return float(np.linalg.norm(a - b))
    return 1.0 - float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def from_left_to_right(faces: list[Face]) -> list[Face]:
    """The order in which faces of one picture are counted."""
    return sorted(faces, key=lambda face: face.box[0])
