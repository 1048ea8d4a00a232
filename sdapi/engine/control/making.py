"""Which controls a unit asks for: by its module, and by what its model file holds."""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdapi.engine.control.control import Control, LoadedControl
from sdapi.engine.control.ip_adapter.adapter import load_ip_adapter
from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import (
    ControlFile,
    Kind,
    fitting_together,
    read_control_file,
)
from sdapi.engine.control.models.control_lora import load_control_lora
from sdapi.engine.control.models.controlnet import load_controlnet
from sdapi.engine.control.models.lllite import load_lllite
from sdapi.engine.control.models.t2i_adapter import load_adapter
from sdapi.engine.control.models.union import load_union
from sdapi.engine.control.modules.inpainting import (
    INPAINTING,
    InpaintFilled,
    InpaintInputs,
    InpaintOnly,
)
from sdapi.engine.control.modules.prediction import ColourFix
from sdapi.engine.control.modules.recolour import Recolour
from sdapi.engine.control.modules.reference import REFERENCES, ReferenceControl
from sdapi.engine.control.modules.reference_layers import ReferenceLayers
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import BadRequest, ModelUnusable

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

_LOADERS: Mapping[Kind, Callable[[ControlFile, BaseModel], LoadedControl]] = {
    Kind.CONTROLNET: load_controlnet,
    Kind.UNION: load_union,
    Kind.CONTROL_LORA: load_control_lora,
    Kind.T2I_ADAPTER: load_adapter,
    Kind.IP_ADAPTER: load_ip_adapter,
    Kind.LLLITE: load_lllite,
}

#: what modules do besides a model, or without one
_MODULES: Mapping[str, Callable[[ControlUnit, "SamplingPass"], Control]] = {
    "inpaint_only": InpaintOnly,
    "inpaint_only+lama": InpaintFilled,
    "tile_colorfix": ColourFix,
    "tile_colorfix+sharp": ColourFix,
    "recolor_luminance": Recolour,
    "recolor_intensity": Recolour,
}


@dataclass(frozen=True, slots=True)
class ControlMaker:
    """Makes the controls of one sampler run."""

    sampling: "SamplingPass"
    #: where the run's reference units meet
    references: ReferenceLayers

    def make(self, unit: ControlUnit, lent: ExitStack) -> list[Control]:
        """The controls of a unit: its model's, its module's, or both.

        They are closed, and their models given back, when `lent` closes. Raises `ModelUnusable`
        for a file that cannot be used, or not with this checkpoint.
        """
        made: list[Control] = []
        for make in self._makers(unit):
            control = make(lent)
            lent.callback(control.close)
            made.append(control)
        if not made:
            raise BadRequest(f"{unit.label}: module {unit.module!r} is not supported")
        return made

    def _makers(self, unit: ControlUnit) -> Generator[Callable[[ExitStack], Control]]:
        sampling, file = self.sampling, unit.model
        if file is not None:
            yield lambda lent: self._of_model(unit, file, lent)
        if (of_module := _MODULES.get(unit.module)) is not None:
            yield lambda _: of_module(unit, sampling)
        if unit.module in REFERENCES:
            yield lambda _: ReferenceControl(unit, sampling, self.references)
        if unit.module in INPAINTING and sampling.components.is_inpainting:
            yield lambda _: InpaintInputs(unit, sampling)

    def _of_model(self, unit: ControlUnit, file: ModelFile, lent: ExitStack) -> Control:
        base = BaseModel.of(self.sampling)
        models, key = self.sampling.models, ("control", file, base)
        with _named(unit.label), ExitStack() as borrowed:
            loaded = borrowed.enter_context(
                models.lend(key, lambda: _load(file, base), LoadedControl)
            )
            control = loaded.control(unit, self.sampling)
            if loaded.works_while_drawing:
                lent.push(borrowed.pop_all())
            return control


@contextmanager
def _named(label: str) -> Generator[None]:
    """Failures of models say whose they are."""
    try:
        yield
    except ModelUnusable as error:
        raise ModelUnusable(f"{label}: {error}") from error


def _load(file: ModelFile, base: BaseModel) -> LoadedControl:
    content = read_control_file(file.path)
    load = _LOADERS.get(content.kind)
    if load is None:
        raise ModelUnusable(
            f"{file.path.name}: {content.kind} is not supported; supported are "
            f"{', '.join(_LOADERS)}"
        )
    with fitting_together(file.path.name):
        return load(content, base)
