"""The masks that drawing needs: the face, its edge, eyes and lips.

A parsing network tells them apart where there is one; else they come from landmarks. Contract:
portrait-pipeline 3.4 to 3.8.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from sdapi.portrait.faces.face import Face, Mask, Parser, Pixels
from sdapi.portrait.pixels.masks.shape import Shape
from sdapi.portrait.pixels.raster import closed, grown, shrunk

#: how far the edge reaches to both sides, pixels to be scaled
_OUTWARD, _INWARD = 16, 8
_FACE: Final = ("skin", "brows", "eyes", "nose", "mouth", "lips")


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Parts of one face in a picture."""

    face: Mask
    eyes: Mask
    lips: Mask
    #: empty without a parser
    ears: Mask
    #: width of the jaw, pixels
    fw: float

    @classmethod
    def of(cls, rgb: Pixels, face: Face, parser: Parser | None) -> "Regions":
        """Raises FaceError without landmarks, and what a parser raises."""
        shape = Shape.of(face, rgb.shape)
        if parser is None:
            nowhere = np.zeros(shape.size, np.float32)
            return cls(shape.face(), shape.eyes(), shape.lips(), nowhere, shape.fw)
        parts = parser.parse(rgb, face)
        whole = _either(parts, _FACE, shape.size)
        return cls(whole, parts["eyes"], parts["lips"], parts["ears"], shape.fw)

    def redrawn(self) -> Mask:
        """What the first pass draws anew: the face without holes, and a little around it."""
        return self._filled(self.face)

    def edge(self, scale: float) -> Mask:
        """What the second pass draws anew: the face's edge, eyes and lips; see `Target.scale`."""
        outside = grown(self.face, _OUTWARD * scale)
        inside = shrunk(self.face, _INWARD * scale)
        return np.maximum.reduce([outside - inside, self.eyes, self.lips])

    def with_ears(self) -> Mask:
        """The same with the ears."""
        return self._filled(np.maximum(self.face, self.ears))

    def _filled(self, whole: Mask) -> Mask:
        reach = self.fw / 20
        return grown(closed(whole, reach), reach)


def _either(parts: Mapping[str, Mask], names: tuple[str, ...], size: tuple[int, int]) -> Mask:
    """1 where any of the named parts is."""
    whole = np.zeros(size, np.float32)
    for name in names:
        whole = np.maximum(whole, parts[name])
    return whole
