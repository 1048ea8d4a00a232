"""The control units of each pass, of the models that are there.

Contract: portrait-pipeline 3.5, 3.8, 3.12, 5.1. A unit whose model is missing is left out; the
portrait gets a warning.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from sdapi.portrait.creation.drawing.passes import Unit
from sdapi.portrait.faces.face import Pixels
from sdapi.portrait.pixels.raster import resized
from sdapi.portrait.state.records import Base

_TILE_INSTEAD_WEIGHT: Final = 0.4
#: the shorter side that the colour model's picture goes through, and how small tile's gets
_COLOUR_SIDE: Final = 1024
_COARSE: Final = 16
#: parts of file names by what a unit is for, the best first
_CANNY: Final = {
    "sd15": ("control_v11p_sd15_canny", "canny"),
    "xl": ("diffusers_xl_canny_mid", "canny"),
}
_OPENPOSE: Final = ("control_v11p_sd15_openpose", "openpose")
_COLOUR: Final = ("control_sd15_random_color", "random_color")
_TILE: Final = ("control_v11f1e_sd15_tile", "tile")
_ADAPTER: Final = {
    "sd15": ("ip-adapter-full-face_sd15", "ip-adapter-plus-face_sd15"),
    "xl": ("ip-adapter-plus-face_sdxl_vit-h",),
}


@dataclass(slots=True)
class UnitMaker:
    """Makes units of the models that can be used, and remembers those that are not there."""

    #: those for this kind of checkpoint
    models: Sequence[str]
    kind: Base
    #: what was left out, as sentences
    missing: dict[str, None]
    #: models that whoever draws has refused, as told elsewhere
    unusable: set[str] = field(default_factory=set[str])

    def canny(self, rgb: Pixels, weight: float) -> list[Unit]:
        return self._unit("canny", _CANNY[self.kind], weight, rgb)

    def openpose(self, pose: Pixels, weight: float) -> list[Unit]:
        """A pose picture that is drawn already."""
        return self._unit("none", _OPENPOSE, weight, pose) if self.kind == "sd15" else []

    def colour(self, rgb: Pixels, weight: float) -> list[Unit]:
        """The picture's colours; where no model takes them, its rough shape through tile."""
        if self.kind != "sd15":
            return []
        if self._model(_COLOUR) is None and self._model(_TILE) is not None:
            return self._unit("none", _TILE, _TILE_INSTEAD_WEIGHT, coarse(rgb))
        return self._unit("none", _COLOUR, weight, _through(rgb, _COLOUR_SIDE))

    def tile(self, rgb: Pixels, weight: float) -> list[Unit]:
        return self._unit("tile_resample", _TILE, weight, rgb) if self.kind == "sd15" else []

    def adapter(self, face: Pixels, weight: float) -> list[Unit]:
        """IP-Adapter, which knows a person by a picture of the face."""
        return self._unit("ip-adapter-auto", _ADAPTER[self.kind], weight, face)

    def _unit(
        self,
        module: str,
        names: tuple[str, ...],
        weight: float,
        rgb: Pixels,
    ) -> list[Unit]:
        model = self._model(names)
        if model is None:
            if _named(names, self.unusable) is None:
                self.missing[f"no control model {names[0]}: its unit is left out"] = None
            return []
        return [Unit(module, model, weight, rgb)]

    def _model(self, names: tuple[str, ...]) -> str | None:
        return _named(names, [model for model in self.models if model not in self.unusable])


def _named(names: tuple[str, ...], models: Collection[str]) -> str | None:
    """The first model that has one of the names."""
    found = (model for name in names for model in models if name.lower() in model.lower())
    return next(found, None)


def coarse(rgb: Pixels) -> Pixels:
    """The picture at a sixteenth of its size and back: colours without shapes."""
    return _through(rgb, min(rgb.shape[:2]) / _COARSE)


def _through(rgb: Pixels, side: float) -> Pixels:
    """The picture brought to a shorter side, and back."""
    height, width = rgb.shape[:2]
    scale = side / min(width, height)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.ascontiguousarray(resized(resized(rgb, size), (width, height)))
