"""From the units of a request to what the engine draws with, and the maps for the answer."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
from PIL import Image

from sdapi.engine.control.unit import UNION_TYPES, ControlMode, ControlUnit, HiresUse, Pixels
from sdapi.engine.job import Job
from sdapi.engine.model_file import ModelFile
from sdapi.errors import BadRequest, SDAPIError
from sdapi.extensions.controlnet.fitting import fit, pixel_perfect
from sdapi.extensions.controlnet.image_encoders import chosen_module, find_encoder
from sdapi.extensions.controlnet.infotext import key_of, read_unit_text, unit_text
from sdapi.extensions.controlnet.model_files import ControlModels
from sdapi.extensions.controlnet.pictures import PictureChoice, UnitPictures
from sdapi.extensions.controlnet.preprocessors import Preprocessor, Values, find
from sdapi.extensions.controlnet.unit_fields import UnitFields, read_unit
from sdapi.infotext import parse
from sdapi.options import Options
from sdapi.services.catalog.styles import Styles
from sdapi.services.scripts.script import Preparation

PLACE: Final = "alwayson_scripts.controlnet.args"
_WIDEST_EDGE: Final = 64
_UNIT_COUNT: Final = "control_net_unit_count"
#: what maps of a control type are to union models
_UNION_TAGS: Final = {
    "OpenPose": "OpenPose",
    "Depth": "Depth",
    "SoftEdge": "Soft Edge",
    "Scribble": "Soft Edge",
    "Canny": "Hard Edge",
    "Lineart": "Hard Edge",
    "MLSD": "Hard Edge",
    "NormalMap": "Normal Map",
    "Segmentation": "Segmentation",
    "Tile": "Tile",
    "Inpaint": "Inpaint",
}
#: with a mask of the request, which img2img blends by itself
_PLAIN_INPAINT: Final = "inpaint"


@dataclass(frozen=True, slots=True)
class PreparedUnit:
    """A unit as the engine takes it, with its maps in the order of the answer."""

    unit: ControlUnit
    maps: tuple[Image.Image, ...]
    module: Preprocessor


@dataclass(slots=True)
class UnitPreparer:
    """Prepares the units of one request; blocks, in a thread of the pool."""

    job: Job
    preparation: Preparation
    models: ControlModels
    #: what infotexts tell of the units, by key
    texts: dict[str, str] = field(default_factory=dict[str, str])

    def prepare(self, given: list[Any]) -> list[PreparedUnit]:
        """The enabled units; raises `SDAPIError` naming the first that cannot be prepared."""
        units = self._enabled(given)
        # Texts tell what was asked for, even of units that cannot be prepared.
        asked = [
            (place, unit, self._values(unit, place, i)) for i, (place, unit) in enumerate(units)
        ]
        return [self._prepared(place, unit, values) for place, unit, values in asked]

    def _enabled(self, given: list[Any]) -> list[tuple[str, UnitFields]]:
        told = self._told_by_infotext()
        units = [
            (
                f"{PLACE}.{i}",
                read_unit(told.get(i, {}) | cast("dict[str, Any]", each), f"{PLACE}.{i}"),
            )
            for i, each in enumerate(given)
            if isinstance(each, dict)
        ]
        enabled = [(place, unit) for place, unit in units if unit.enabled]
        allowed = self.preparation.options.integer(_UNIT_COUNT)
        if len(enabled) > allowed:
            raise BadRequest(
                f"{PLACE}: {len(enabled)} units are enabled; option {_UNIT_COUNT} allows {allowed}"
            )
        return enabled

    def _told_by_infotext(self) -> dict[int, dict[str, Any]]:
        """Fields that the request's `infotext` has for the units at each place."""
        text = self.preparation.request.infotext
        if not text:
            return {}
        parsed = parse(text, options=self.preparation.options, styles=Styles.load())
        return {
            number: read_unit_text(value)
            for number in range(self.preparation.options.integer(_UNIT_COUNT))
            if isinstance(value := parsed.get(key_of(number)), str)
        }

    def _values(self, unit: UnitFields, place: str, number: int) -> Values:
        values = self._module(unit, place).values(
            unit.processor_res, unit.threshold_a, unit.threshold_b
        )
        self.texts[key_of(number)] = unit_text(unit, values)
        return values

    @staticmethod
    def _module(unit: UnitFields, place: str) -> Preprocessor:
        try:
            return find(unit.module)
        except SDAPIError as error:
            raise type(error)(f"{place}.module: {error.detail}") from error

    def _prepared(self, place: str, unit: UnitFields, values: Values) -> PreparedUnit:
        module, options = self._module(unit, place), self.preparation.options
        model = None
        if not module.model_free:
            try:
                model = self.models.find(unit.model, options).file
            except SDAPIError as error:
                raise type(error)(f"{place}.model: {error.detail}") from error
        acting, encoder = self._embedding(module, model, place)
        chosen = PictureChoice(unit, module, self.preparation, place).find()
        size, second_size = self._sizes()
        with _located(f"{place}.module"):
            detected = self._detected(unit, module, values, chosen)
        hint = fit(detected, chosen.fit, size)
        second = None if second_size is None else fit(detected, chosen.fit, second_size)
        maps = [hint] if second is None else [second, hint]
        control = ControlUnit(
            label=place,
            module=_acting_module(acting, chosen),
            model=model,
            hint=hint,
            second_hint=second,
            pictures=chosen.pictures,
            encoder=encoder,
            weight=unit.weight,
            mode=ControlMode(unit.control_mode),
            advanced=None if unit.advanced_weighting is None else tuple(unit.advanced_weighting),
            start=unit.guidance_start,
            end=unit.guidance_end,
            # Without a second pass the choice means nothing (controlnet-api 2).
            hires_use=HiresUse.BOTH if second is None else HiresUse(unit.hr_option),
            threshold_a=values.threshold_a,
            threshold_b=values.threshold_b,
            region=self._region(unit, place),
            union_type=_union_type(unit, module),
            edge=_edge(options),
        )
        shown = tuple(shown_map(each) for each in maps) if unit.save_detected_map else ()
        return PreparedUnit(control, shown, module)

    def _embedding(
        self, module: Preprocessor, model: ModelFile | None, place: str
    ) -> tuple[str, ModelFile | None]:
        """The module that a unit acts with, and the image encoder it looks at pictures with."""
        with _located(f"{place}.module"):
            acting = chosen_module(module.name, None if model is None else model.path)
            return acting, find_encoder(acting, self.preparation.services.settings)

    def _detected(
        self, unit: UnitFields, module: Preprocessor, values: Values, chosen: UnitPictures
    ) -> Pixels:
        """What the preprocessor finds in the unit's first picture."""
        pixels, resolution = chosen.pictures[0], values.resolution
        if unit.pixel_perfect:
            resolution = pixel_perfect(pixels, chosen.fit, self._sizes()[0])
        return module.run(
            pixels,
            resolution=resolution,
            threshold_a=values.threshold_a,
            threshold_b=values.threshold_b,
            seed=self._seed(),
            annotators=self.preparation.services.annotators,
        ).pixels

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

    def _region(self, unit: UnitFields, place: str) -> Any:
        if unit.effective_region_mask is None:
            return None
        where = f"{place}.effective_region_mask"
        grey = self.preparation.load_image(unit.effective_region_mask, where).convert("L")
        return np.asarray(grey, np.float32) / 255


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


def _union_type(unit: UnitFields, module: Preprocessor) -> int | None:
    """As asked for, else as the module's tags tell."""
    asked = unit.union_control_type
    if asked != "Unknown":
        return UNION_TYPES.index(asked)
    told = next((_UNION_TAGS[tag] for tag in module.tags if tag in _UNION_TAGS), None)
    return None if told is None else UNION_TYPES.index(told)


def shown_map(hint: Pixels) -> Image.Image:
    """A map as answers show it; what an inpainting mask covers is half transparent."""
    if hint.shape[2] == 3:
        return Image.fromarray(hint)
    alpha = (255 - hint[:, :, 3] * 0.5).astype(np.uint8)
    return Image.fromarray(np.dstack([hint[:, :, :3], alpha]))


def with_texts_first(keys: dict[str, Any], texts: dict[str, str]) -> None:
    """Put the units' texts before all other infotext keys, in place."""
    others = dict(keys)
    keys.clear()
    keys.update(texts | others)
