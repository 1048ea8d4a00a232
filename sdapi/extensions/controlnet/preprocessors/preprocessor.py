"""What a preprocessor is: names, sliders, and a function from pixels to a map."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sdapi.engine.control.annotators.detected_map import DetectedMap, Pixels
from sdapi.errors import BadImage, BadRequest

if TYPE_CHECKING:
    from sdapi.engine.control.annotators.annotators import Annotators


@dataclass(frozen=True, slots=True)
class Slider:
    """A number that a preprocessor takes; whole ones stay whole in infotexts."""

    name: str
    minimum: float
    maximum: float
    default: float
    step: float = 0.01

    def or_default(self, value: float) -> float:
        """The value, or the default when it is out of range, as -1 always is."""
        return value if self.minimum <= value <= self.maximum else self.default

    def describe(self) -> dict[str, Any]:
        """As `/controlnet/module_list` shows it."""
        return {
            "name": self.name,
            "value": self.default,
            "min": self.minimum,
            "max": self.maximum,
            "step": self.step,
        }


#: tags of what works without a map
_REFERENCE: Final = "Reference"
_PROMPT_PICTURE: Final = "IP-Adapter"
#: A slider that is not shown has a value all the same, and infotexts show it.
HIDDEN: Final = Slider("", 0, 1, 0.5)
RESOLUTION: Final = Slider("Resolution", 64, 2048, 512, 8)


@dataclass(frozen=True, slots=True)
class Values:
    """The numbers a preprocessor works with, none of them out of range."""

    resolution: float
    threshold_a: float
    threshold_b: float


class Kind(Enum):
    """What a preprocessor needs, and what it makes."""

    #: pixels from pixels alone: may run in any thread
    WEIGHTLESS = "weightless"
    #: pixels by a network, which `Annotators` lends
    NETWORK = "network"
    #: nothing to see: what the unit's model makes of the picture belongs to the engine
    EMBEDDING = "embedding"


class Mask(Enum):
    """What becomes of a fourth channel."""

    IGNORED = "ignored"
    ACCEPTED = "accepted"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """One line of the table; `find` gets it by either name."""

    name: str
    #: what `alias_names` and the control types call it
    label: str
    tags: tuple[str, ...] = ()
    kind: Kind = Kind.WEIGHTLESS
    resolution: Slider = RESOLUTION
    slider_1: Slider = HIDDEN
    slider_2: Slider = HIDDEN
    mask: Mask = Mask.IGNORED
    #: works without a control model
    model_free: bool = False

    def values(self, processor_res: float, threshold_a: float, threshold_b: float) -> Values:
        """What was asked for, with the default for what is out of range."""
        return Values(
            self.resolution.or_default(processor_res),
            self.slider_1.or_default(threshold_a),
            self.slider_2.or_default(threshold_b),
        )

    @property
    def sliders(self) -> tuple[Slider, ...]:
        """Those that are shown, the resolution first."""
        return tuple(s for s in (self.resolution, self.slider_1, self.slider_2) if s.name)

    @property
    def shows_something(self) -> bool:
        """Whether its map is more than the picture that a model embeds."""
        return self.kind is not Kind.EMBEDDING or _REFERENCE in self.tags

    @property
    def takes_several(self) -> bool:
        """Whether one unit may have several pictures."""
        return self.kind is Kind.EMBEDDING and _PROMPT_PICTURE in self.tags

    def run(
        self,
        image: NDArray[np.uint8],
        *,
        resolution: float = -1,
        threshold_a: float = -1,
        threshold_b: float = -1,
        seed: int = 0,
        exact_resolution: int | None = None,
        annotators: "Annotators | None" = None,
    ) -> DetectedMap:
        """The map of a picture [H, W], [H, W, 3] or [H, W, 4]; blocks, in a thread of the pool.

        Values out of range count as not given. An exact resolution, as pixel perfect units ask for,
        may be any number from 1 on and stands for the slider where there is one. `annotators` has
        the networks that `Kind.NETWORK` needs.
        Embeddings are the engine's: their map is the picture. Raises `BadImage`, `BadRequest`,
        `AnnotatorMissing` or `ModelUnusable`.
        """
        pixels = self._pixels(image)
        values = self.values(resolution, threshold_a, threshold_b)
        if exact_resolution is not None and self.resolution.name:
            values = replace(values, resolution=max(exact_resolution, 1))
        if self.kind is Kind.EMBEDDING:
            return DetectedMap(np.ascontiguousarray(pixels[:, :, :3]))
        from sdapi.extensions.controlnet.preprocessors import works  # imports OpenCV

        if self.kind is Kind.WEIGHTLESS:
            return DetectedMap(works.work_of(self.name)(pixels, values, seed))
        if annotators is None:
            raise TypeError(f"the preprocessor {self.name} needs the networks of `annotators`")
        return works.annotated(annotators, self.name, pixels, values, seed)

    def _pixels(self, image: NDArray[np.uint8]) -> Pixels:
        """Three channels, or four where a mask counts."""
        if image.ndim == 2:
            image = image[:, :, None]
        if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.dtype != np.uint8:
            raise BadImage(
                f"{self.label}: a picture is bytes [height, width, 1, 3 or 4], "
                f"not {image.dtype} {list(image.shape)}"
            )
        if image.size == 0:
            raise BadImage(f"{self.label}: the picture has no pixels ({image.shape[:2]})")
        if self.mask is Mask.REQUIRED and image.shape[2] != 4:
            raise BadRequest(f"Preprocessor {self.name} requires a mask")
        if image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        channels = 3 if self.mask is Mask.IGNORED else image.shape[2]
        return np.ascontiguousarray(image[:, :, :channels])
