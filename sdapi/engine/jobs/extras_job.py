"""A job on given pictures: enlarging them, restoring their faces (contract: webui-api 9)."""

from dataclasses import dataclass

from PIL.Image import Image

from sdapi.engine.faces.restorer import FaceRestoration
from sdapi.engine.upscaling.upscaler import Upscaler


@dataclass(frozen=True, slots=True)
class Enlargement:
    """How far every picture is enlarged, and by what."""

    upscaler: Upscaler
    #: how much larger; None: until `size` is covered
    factor: float | None = None
    size: tuple[int, int] = (0, 0)
    #: centre the picture on a canvas of `size`, and cut off what is over
    crops: bool = False
    #: mixed in by its share
    second: Upscaler | None = None
    second_share: float = 0.0

    def factor_for(self, size: tuple[int, int]) -> float:
        """How much larger a picture of a size is to be."""
        if self.factor is not None:
            return self.factor
        return max(self.size[0] / size[0], self.size[1] / size[1])


@dataclass(frozen=True, slots=True)
class ExtrasJob:
    """What is done to each of some pictures, in the order of the fields."""

    id: str
    #: RGB or RGBA
    images: tuple[Image, ...]
    names: tuple[str, ...]
    enlargement: Enlargement | None = None
    faces: tuple[FaceRestoration, ...] = ()
