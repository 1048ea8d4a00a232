"""What one unit does to the UNet during one sampler run; each kind of control is a subclass."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor, nn

from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.weights.tensor_bytes import module_bytes

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass


M = TypeVar("M", bound=nn.Module)


class Control:
    """Made when a sampler run begins; its methods are called only while the unit is active.

    Nothing of a model may be different once `close` has returned.
    """

    def begun(self, sampling: "SamplingPass") -> "SamplingPass":
        """The run that is about to begin; may replace what it works with."""
        return sampling

    def look(self, call: UNetCall) -> None:
        """Before a call of the UNet, while no control is armed: what needs the UNet for itself."""

    def before(self, call: UNetCall) -> None:
        """Before a call of the UNet, once every control has looked: change its inputs, or arm
        hooks."""

    def after(self, call: UNetCall, output: Tensor) -> Tensor:
        """After that call: change what it gave [N, C, h, w], or disarm hooks."""
        return output

    def finish(self, sampling: "SamplingPass", latent: Tensor) -> Tensor:
        """The run is over, also when it was stopped; may replace its latent [B, C, h, w]."""
        return latent

    def pictures(self, images: Sequence[Image]) -> Sequence[Image]:
        """The pictures of a batch whose last run this was, decoded; may replace them."""
        return images

    def close(self) -> None:
        """Take everything away again; always called."""


class LoadedControl(ABC):
    """A control model in memory, as the model cache keeps it."""

    #: False for one that a control has done with once it is made
    works_while_drawing: ClassVar[bool] = True

    @property
    @abstractmethod
    def size_bytes(self) -> int: ...

    @abstractmethod
    def move(self, device: torch.device) -> None: ...

    @abstractmethod
    def control(self, unit: ControlUnit, sampling: "SamplingPass") -> Control:
        """What a unit with this model does in a sampler run.

        Raises `ModelUnusable` when the model does not fit the run's checkpoint, `BadRequest` for
        what the unit asks of it.
        """


@dataclass(slots=True)
class LoadedModule(LoadedControl, Generic[M]):
    """A control model that is one module."""

    module: M

    @property
    def size_bytes(self) -> int:
        return module_bytes(self.module)

    def move(self, device: torch.device) -> None:
        nn.Module.to(self.module, device)  # diffusers' wrapper of `to` hides its types
