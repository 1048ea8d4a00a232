"""The ControlNet units of a job, called by the engine while it draws."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from PIL.Image import Image

from sdapi.engine.control.control import Control
from sdapi.engine.control.making import ControlMaker
from sdapi.engine.control.modules.reference_layers import ReferenceLayers
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.control.window import Progress
from sdapi.engine.jobs.stages import Stages, UNetCall
from sdapi.errors import SDAPIError

if TYPE_CHECKING:
    from torch import Tensor

    from sdapi.engine.checkpoints.checkpoint import Components
    from sdapi.engine.sampling.sampling_pass import SamplingPass

log = logging.getLogger(__name__)


def _form_of(components: "Components") -> object:
    """What controls made for a UNet need of another."""
    config = components.unet.config
    return config["block_out_channels"], config["cross_attention_dim"]


class ControlStages(Stages):
    """Makes the controls of each sampler run, and asks those whose window it is."""

    def __init__(
        self,
        units: Sequence[ControlUnit],
        maps: Sequence[Image] = (),
        *,
        tolerates_failures: bool = False,
    ) -> None:
        """`tolerates_failures` leaves out what cannot be loaded, with a warning in the answer."""
        super().__init__()
        self._tolerates_failures = tolerates_failures
        self.units = tuple(units)
        #: models that are lent, and what must be taken away
        self._lent = ExitStack()
        self._controls: list[tuple[ControlUnit, Control]] = []
        self._asked: list[Control] = []
        self._progress = Progress(1)
        #: of the UNet that the controls were made for
        self._form: object = None
        self.detected_maps.extend(maps)

    def begin_pass(self, sampling: "SamplingPass") -> "SamplingPass":
        """Load what the units of a pass need; raises `ModelUnusable` or `BadRequest`."""
        self.close()
        self._progress = Progress(sampling.planned_steps)
        self._form = _form_of(sampling.components)
        maker = ControlMaker(sampling, ReferenceLayers())
        for unit in self.units:
            if unit.acts_in(is_second_pass=sampling.is_second):
                self._begin(unit, maker)
        for _, control in self._controls:
            sampling = control.begun(sampling)
        return sampling

    def _begin(self, unit: ControlUnit, maker: ControlMaker) -> None:
        with ExitStack() as lent:
            try:
                controls = maker.make(unit, lent)
            except SDAPIError as error:
                if not self._tolerates_failures:
                    raise
                self._leave_out(unit, error)
                return
            self._controls += [(unit, control) for control in controls]
            self._lent.push(lent.pop_all())

    def _leave_out(self, unit: ControlUnit, error: SDAPIError) -> None:
        reason = error.detail.removeprefix(f"{unit.label}: ")
        told = f"drawn without {unit.label}: {reason}"
        if told not in self.warnings:
            log.warning(told)
            self.warnings.append(told)

    def before_denoise(self, call: UNetCall) -> None:
        self._progress.note_call(call.time_step)
        self._asked = []
        # A refiner of another form goes on without control.
        if _form_of(call.components) == self._form:
            self._asked = [each for unit, each in self._controls if self._progress.is_within(unit)]
        for control in self._asked:
            control.look(call)
        for control in self._asked:
            control.before(call)

    def after_denoise(self, call: UNetCall, output: "Tensor") -> "Tensor":
        for control in reversed(self._asked):
            output = control.after(call, output)
        return output

    def on_step(self, index: int, denoised: "Tensor | None") -> None:
        self._progress.note_step(index)

    def end_pass(self, sampling: "SamplingPass", latent: "Tensor") -> "Tensor":
        for _, control in self._controls:
            latent = control.finish(sampling, latent)
        return latent

    def after_decode(self, images: Sequence[Image]) -> Sequence[Image]:
        for _, control in self._controls:
            images = control.pictures(images)
        return images

    def close(self) -> None:
        self._controls = []
        self._asked = []
        self._lent.close()
