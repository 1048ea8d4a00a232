"""Which control a unit asks for: by its module, else by what its model file holds."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from sdapi.engine.control.base_model import BaseModel
from sdapi.engine.control.control import Control, LoadedControl
from sdapi.engine.control.control_file import ControlFile, Kind, read_control_file
from sdapi.engine.control.control_lora import load_control_lora
from sdapi.engine.control.controlnet import load_controlnet
from sdapi.engine.control.ip_adapter.adapter import load_ip_adapter
from sdapi.engine.control.predicted import ColourFix, InpaintOnly, Recolour
from sdapi.engine.control.reference import REFERENCES, ReferenceControl
from sdapi.engine.control.t2i_adapter import load_adapter
from sdapi.engine.control.union import load_union
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.model_file import ModelFile
from sdapi.errors import BadRequest, ModelUnusable

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

_LOADERS: Mapping[Kind, Callable[[ControlFile, BaseModel], LoadedControl]] = {
    Kind.CONTROLNET: load_controlnet,
    Kind.UNION: load_union,
    Kind.CONTROL_LORA: load_control_lora,
    Kind.T2I_ADAPTER: load_adapter,
    Kind.IP_ADAPTER: load_ip_adapter,
}

#: what modules do besides a model, or without one
_MODULES: Mapping[str, Callable[[ControlUnit, "SamplingPass"], Control]] = {
    "inpaint_only": InpaintOnly,
    "inpaint_only+lama": InpaintOnly,
    "tile_colorfix": ColourFix,
    "tile_colorfix+sharp": ColourFix,
    "recolor_luminance": Recolour,
    "recolor_intensity": Recolour,
    **dict.fromkeys(REFERENCES, ReferenceControl),
}


def make_controls(unit: ControlUnit, sampling: "SamplingPass", lent: ExitStack) -> list[Control]:
    """The controls of a unit for a sampler run: its model's, its module's, or both.

    Models are lent until `lent` closes. Raises `ModelUnusable` for a file that cannot be used, or
    not with this checkpoint.
    """
    made: list[Control] = []
    if unit.model is not None:
        made.append(_of_model(unit, unit.model, sampling, lent))
    if (of_module := _MODULES.get(unit.module)) is not None:
        made.append(of_module(unit, sampling))
    if not made:
        raise BadRequest(f"{unit.label}: module {unit.module!r} is not supported")
    return made


def _of_model(
    unit: ControlUnit, file: ModelFile, sampling: "SamplingPass", lent: ExitStack
) -> Control:
    base = BaseModel.of(sampling)
    try:
        loaded = lent.enter_context(
            sampling.models.lend(("control", file, base), lambda: _load(file, base), LoadedControl)
        )
        return loaded.control(unit, sampling)
    except ModelUnusable as error:
        raise ModelUnusable(f"{unit.label}: {error}") from error


def _load(file: ModelFile, base: BaseModel) -> LoadedControl:
    content = read_control_file(file.path)
    load = _LOADERS.get(content.kind)
    if load is None:
        raise ModelUnusable(
            f"{file.path.name}: {content.kind} is not supported; supported are "
            f"{', '.join(_LOADERS)}"
        )
    return load(content, base)
