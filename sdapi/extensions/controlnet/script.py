"""The always-on script "ControlNet" (contract: controlnet-api 1)."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import RootModel, model_validator

from sdapi.engine.jobs.job import Job
from sdapi.errors import SDAPIError
from sdapi.extensions.controlnet.model_files import ControlModels
from sdapi.extensions.controlnet.units.unit_fields import UnitFields
from sdapi.services.scripts.script import Kind, Preparation, Script

if TYPE_CHECKING:
    from sdapi.services.container import Services


_UNIT_KEY: Final = re.compile(r"ControlNet \d+")


class ControlNetArgs(RootModel[list[Any]]):
    """One object for each unit; what is none is ignored. An object alone is one unit."""

    @model_validator(mode="before")
    @classmethod
    def _of_one(cls, given: Any) -> Any:
        return [given] if isinstance(given, dict) else given


class ControlNet(Script):
    """Steers what is drawn by pictures: edges, depth, poses and many more."""

    name = "ControlNet"
    args = ControlNetArgs

    def describe(self, kind: Kind, services: "Services") -> list[dict[str, Any]]:
        """A unit's defaults, as often as units are allowed."""
        unit = {
            "label": "",
            "value": UnitFields.shown(),
            "minimum": None,
            "maximum": None,
            "step": None,
            "choices": None,
        }
        return [unit] * services.options.current.integer("control_net_unit_count")

    def prepare(self, job: Job, args: ControlNetArgs, preparation: Preparation) -> Job:
        """The job with its units; with none it stays what it was."""
        if not any(isinstance(each, dict) for each in args.root):
            return job
        # Here, so that a server starts without OpenCV.
        from sdapi.extensions.controlnet.units.infotext import with_texts_first
        from sdapi.extensions.controlnet.units.preparing import UnitPreparer

        options, services = preparation.options, preparation.services
        tolerates = options.flag("control_net_tolerate_failures")
        preparer = UnitPreparer(
            job, preparation, ControlModels(services.settings, services.catalog)
        )
        try:
            prepared = preparer.prepare(args.root)
        except SDAPIError as error:
            if not tolerates:
                raise
            preparation.warnings.append(f"drawn without ControlNet: {error.detail}")
            prepared = []
        with_texts_first(preparation.keys, preparer.texts)
        if not prepared:
            return job
        from sdapi.engine.control.control_stages import ControlStages  # imports torch

        shows = not options.flag("control_net_no_detectmap")
        maps = [each for unit in prepared for each in unit.maps] if shows else []
        units = [each.unit for each in prepared]
        stages = ControlStages(units, maps, tolerates_failures=tolerates)
        return replace(job, stages=(*job.stages, stages))

    def read_infotext(self, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Each part of a unit's text by itself: `ControlNet 0 module` (contract: 10)."""
        from sdapi.extensions.controlnet.units.infotext import read_unit_text

        return {
            f"{key} {field}": value
            for key, text in parameters.items()
            if _UNIT_KEY.fullmatch(key) and isinstance(text, str)
            for field, value in read_unit_text(text).items()
        }
