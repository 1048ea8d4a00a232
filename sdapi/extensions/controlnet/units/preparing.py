"""From the units of a request to what the engine draws with, and the maps for the answer."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from PIL import Image

from sdapi.engine.control.unit import ControlMode, ControlUnit, HiresUse, Pixels
from sdapi.engine.jobs.job import Job
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import BadRequest, SDAPIError
from sdapi.extensions.controlnet.image_encoders import chosen_module, find_encoder
from sdapi.extensions.controlnet.maps.fitting import Fit, fit, pixel_perfect
from sdapi.extensions.controlnet.maps.shown import shown_map
from sdapi.extensions.controlnet.model_files import ControlModels
from sdapi.extensions.controlnet.preprocessors import Preprocessor, Values, find
from sdapi.extensions.controlnet.units.infotext import key_of, unit_text
from sdapi.extensions.controlnet.units.pictures import PictureChoice, UnitPictures
from sdapi.extensions.controlnet.units.pixel_budget import PixelBudget
from sdapi.extensions.controlnet.units.reading import enabled_units
from sdapi.extensions.controlnet.units.union_types import union_type
from sdapi.extensions.controlnet.units.unit_fields import UnitFields
from sdapi.options import Options
from sdapi.services.scripts.script import Preparation

__all__ = ["PreparedUnit", "UnitPreparer"]

_WIDEST_EDGE: Final = 64
#: with a mask of the request, which img2img blends by itself
_PLAIN_INPAINT: Final = "inpaint"
_FILLS: Final = "inpaint_only+lama"
_MERGE: Final = "merge"


@dataclass(frozen=True, slots=True)
class PreparedUnit:
    """A unit as the engine takes it, with its maps in the order of the answer."""

    unit: ControlUnit
    maps: tuple[Image.Image, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A unit of the request, and what is known of it before anything is read."""

    place: str
    fields: UnitFields
    module: Preprocessor
    values: Values


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A map at the size of each pass."""

    first: Pixels
    second: Pixels | None

    @property
    def all(self) -> tuple[Pixels, ...]:
        """The larger one first, as in answers."""
        return (self.first,) if self.second is None else (self.second, self.first)


@dataclass(slots=True)
class UnitPreparer:
    """Prepares the units of one request; blocks, in a thread of the pool."""

    job: Job
    preparation: Preparation
    models: ControlModels
    #: what infotexts tell of the units, by key
    texts: dict[str, str] = field(default_factory=dict[str, str])
    _budget: PixelBudget = field(default_factory=PixelBudget)

    def prepare(self, given: list[Any]) -> list[PreparedUnit]:
        """The enabled units; raises `SDAPIError` naming the first that cannot be prepared."""
        units = enabled_units(given, self.preparation)
        # Texts tell what was asked for, even of units that cannot be prepared.
        asked = [self._asked(place, unit, i) for i, (place, unit) in enumerate(units)]
        return [prepared for each in asked for prepared in self._prepared(each)]

    def _asked(self, place: str, unit: UnitFields, number: int) -> _Asked:
        with _located(f"{place}.module"):
            module = find(unit.module)
        values = module.values(unit.processor_res, unit.threshold_a, unit.threshold_b)
        self.texts[key_of(number)] = unit_text(unit, values)
        return _Asked(place, unit, module, values)

    def _prepared(self, asked: _Asked) -> Iterator[PreparedUnit]:
        model = self._model(asked)
        module, encoder = self._embedding(asked, model)
        chosen = PictureChoice(
            asked.fields, asked.module, self.preparation, asked.place, self._budget
        ).find()
        maps = [self._fitted(asked, pixels, chosen) for pixels in chosen.pictures]
        whole = self._unit(asked, chosen, maps[0], model, encoder)
        whole = replace(whole, module=_acting_module(module, chosen))
        if len(maps) == 1 or asked.module.takes_several:
            yield PreparedUnit(whole, _shown(asked, maps))
        elif asked.fields.input_mode == _MERGE:
            for pixels, each in zip(chosen.pictures, maps, strict=True):
                unit = replace(whole, pictures=(pixels,), hint=each.first, second_hint=each.second)
                yield PreparedUnit(_share_of(unit, len(maps)), _shown(asked, [each]))
        else:
            raise BadRequest(
                f"{asked.place}.image: module {asked.fields.module!r} takes one picture, not "
                f"{len(maps)}; with input_mode 'merge' each counts with its share of the weight"
            )

    def _model(self, asked: _Asked) -> ModelFile | None:
        if asked.module.model_free:
            return None
        with _located(f"{asked.place}.model"):
            return self.models.find(asked.fields.model, self.preparation.options).file

    def _embedding(self, asked: _Asked, model: ModelFile | None) -> tuple[str, ModelFile | None]:
        """The module that a unit acts with, and the image encoder it looks at pictures with."""
        with _located(f"{asked.place}.module"):
            acting = chosen_module(asked.module.name, None if model is None else model.path)
            return acting, find_encoder(acting, self.preparation.services.settings)

    def _unit(
        self,
        asked: _Asked,
        chosen: UnitPictures,
        hint: _Fitted,
        model: ModelFile | None,
        encoder: ModelFile | None,
    ) -> ControlUnit:
        fields = asked.fields
        advanced = fields.advanced_weighting
        return ControlUnit(
            label=asked.place,
            module=asked.module.name,
            model=model,
            hint=hint.first,
            second_hint=hint.second,
            pictures=chosen.pictures,
            encoder=encoder,
            weight=fields.weight,
            mode=ControlMode(fields.control_mode),
            advanced=None if advanced is None else tuple(advanced),
            start=fields.guidance_start,
            end=fields.guidance_end,
            # Without a second pass the choice means nothing (controlnet-api 2).
            hires_use=HiresUse.BOTH if hint.second is None else HiresUse(fields.hr_option),
            threshold_a=asked.values.threshold_a,
            threshold_b=asked.values.threshold_b,
            region=self._region(asked),
            union_type=union_type(fields.union_control_type, asked.module),
            edge=_edge(self.preparation.options),
        )

    def _fitted(self, asked: _Asked, pixels: Pixels, chosen: UnitPictures) -> _Fitted:
        """What the preprocessor finds in a picture, at the size of each pass."""
        size, second_size = self._sizes()
        for each in (size, second_size):
            if each is not None:
                self._budget.take(each, asked.place)
        if asked.module.name == _FILLS and chosen.fit is Fit.CONTAIN:
            # What is added around the picture is to be filled, too.
            pixels = fit(pixels, chosen.fit, size)
        values, exact = asked.values, None
        if asked.fields.pixel_perfect:
            exact = pixel_perfect(pixels, chosen.fit, size)
        with _located(f"{asked.place}.module"):
            detected = asked.module.run(
                pixels,
                resolution=values.resolution,
                threshold_a=values.threshold_a,
                threshold_b=values.threshold_b,
                seed=self._seed(),
                exact_resolution=exact,
                annotators=self.preparation.services.annotators,
            ).pixels
        second = None if second_size is None else fit(detected, chosen.fit, second_size)
        return _Fitted(fit(detected, chosen.fit, size), second)

    def _seed(self) -> int:
        """What a preprocessor's random numbers follow from."""
        request, first = self.preparation.request, self.job.seeds[0]
        seeds = (
            first if each in (None, -1) else max(each, 0)
            for each in (request.seed, request.subseed)
        )
        return sum(seeds) & 0xFFFFFFFF

    def _sizes(self) -> tuple[tuple[int, int], tuple[int, int] | None]:
        """The pixels (width, height) that the latents of each pass stand for."""
        hires = self.job.hires
        first = self.job.width // 8 * 8, self.job.height // 8 * 8
        if hires is None:
            return first, None
        (width, height), (x, y) = hires.size, hires.surplus
        return first, ((width // 8 - x) * 8, (height // 8 - y) * 8)

    def _region(self, asked: _Asked) -> Any:
        text = asked.fields.effective_region_mask
        if text is None:
            return None
        where = f"{asked.place}.effective_region_mask"
        with _located(where):
            image = self.preparation.load_image(text, where)
        self._budget.take(image.size, where)
        return np.asarray(image.convert("L"), np.float32) / 255


def _shown(asked: _Asked, maps: list[_Fitted]) -> tuple[Image.Image, ...]:
    if not asked.fields.save_detected_map:
        return ()
    return tuple(shown_map(pixels) for each in maps for pixels in each.all)


def _share_of(unit: ControlUnit, count: int) -> ControlUnit:
    """A unit as one of several that share its weight."""
    advanced = unit.advanced
    if advanced is not None:
        advanced = tuple(each / count for each in advanced)
    return replace(unit, weight=unit.weight / count, advanced=advanced)


def _edge(options: Options) -> int:
    key = "control_net_inpaint_blur_sigma"
    edge = options.integer(key)
    if not 0 <= edge <= _WIDEST_EDGE:
        raise BadRequest(f"{key}: {edge} is out of range; 0 to {_WIDEST_EDGE}")
    return edge


@contextmanager
def _located(place: str) -> Generator[None]:
    """Errors say where in the request they arose."""
    try:
        yield
    except SDAPIError as error:
        raise type(error)(f"{place}: {error.detail}") from error


def _acting_module(module: str, chosen: UnitPictures) -> str:
    """What the engine does for a module; img2img's own inpainting needs no other."""
    if module == "inpaint_only" and chosen.has_request_mask:
        return _PLAIN_INPAINT
    return module
