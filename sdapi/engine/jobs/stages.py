"""What a script may do while a job is drawn: named points that the engine calls.

A script makes one `Stages` for each job; all its methods run in the worker's thread, in the order
below. What a stage changes about a model it must undo in `close`, which always runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

if TYPE_CHECKING:
    from torch import Tensor

    from sdapi.engine.checkpoints.checkpoint import Components
    from sdapi.engine.sampling.denoising.guidance import Row
    from sdapi.engine.sampling.sampling_pass import SamplingPass


@dataclass(slots=True)
class UNetCall:
    """One call of the UNet; a stage may change what goes in."""

    #: scaled latents [N, C, h, w] and their time steps [N], all the same
    x: "Tensor"
    t: "Tensor"
    #: that time step, at hand without waiting for a GPU
    time_step: float
    #: whose latents the N lines are, and the cond of each
    rows: "Sequence[Row]"
    #: the checkpoint whose UNet is called, its noise levels as the job wants them; after a refiner
    #: took over, that one
    components: "Components"
    #: further input channels of the UNet [B, K, h, w], for each image
    image_cond: "Tensor | None" = None
    #: further arguments of the UNet, such as a ControlNet's residuals
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])


class Stages:
    """Every point does nothing unless a script says otherwise."""

    def __init__(self) -> None:
        #: pictures for the end of the answer; they have no infotext
        self.extra_images: list[Image] = []
        #: likewise, after all those; in URL mode they become files of their own
        self.detected_maps: list[Image] = []
        #: sentences for the answer's `warnings`
        self.warnings: list[str] = []

    def begin_pass(self, sampling: "SamplingPass") -> "SamplingPass":
        """Before a sampler runs (twice a batch with hires fix); may replace what it works with."""
        return sampling

    def before_denoise(self, call: UNetCall) -> None:
        """Before every call of the UNet."""

    def after_denoise(self, call: UNetCall, output: "Tensor") -> "Tensor":
        """After that call, with the UNet's output [N, C, h, w], float32; may replace it."""
        return output

    def on_step(self, index: int, denoised: "Tensor | None") -> None:
        """After step `index` of a pass, with the latest prediction."""

    def end_pass(self, sampling: "SamplingPass", latent: "Tensor") -> "Tensor":
        """After a sampler ran, also when it was stopped; may replace the latent."""
        return latent

    def after_decode(self, images: Sequence[Image]) -> Sequence[Image]:
        """The pictures of a batch, decoded; may replace them."""
        return images

    def close(self) -> None:
        """The job is over, whatever became of it: give back everything."""
