"""What all stages of one creation share: who draws, who looks at faces, what is said and warned."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Concatenate, ParamSpec, TypeVar

import anyio.to_thread

from sdapi.errors import QueueFull
from sdapi.portrait.creation.drawing.bases import Target
from sdapi.portrait.creation.drawing.passes import (
    EULER_A,
    LCM_CFG_SCALE,
    MASK_BLUR,
    Drawn,
    Pass,
)
from sdapi.portrait.creation.drawing.prompts import Speaker
from sdapi.portrait.creation.drawing.units import UnitMaker
from sdapi.portrait.creation.drawing.webui import Drawer, DrawingFailed, Inventory, UnitsRefused
from sdapi.portrait.creation.gathered.sight import Sight
from sdapi.portrait.faces.face import Pixels
from sdapi.portrait.faces.processes import FaceProcesses, FaceTaskFailed
from sdapi.portrait.faces.providers import Providers
from sdapi.portrait.faults import MODEL_ID_MALFORMED, Fault, PortraitError
from sdapi.portrait.pixels.raster import resized
from sdapi.portrait.wire.configure import CreateOptions

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Studio:
    """One creation's surroundings."""

    processes: FaceProcesses
    sight: Sight
    drawer: Drawer
    inventory: Inventory
    target: Target
    speaker: Speaker
    units: UnitMaker
    options: CreateOptions
    seed: int
    is_lcm: bool = False
    #: sentences for the answer, once each
    warnings: dict[str, None] = field(default_factory=dict[str, None])

    def warn(self, sentence: str) -> None:
        """Tell the caller, and the log."""
        if sentence not in self.warnings:
            log.info("portrait: %s", sentence)
        self.warnings[sentence] = None

    async def task(
        self,
        fault: Fault,
        task: Callable[Concatenate[Providers, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """A task for the face processes whose failure is that of the creation."""
        try:
            return await self.processes.run(task, *args, **kwargs)
        except FaceTaskFailed as error:
            log.warning("portrait: %s: %s", getattr(task, "__name__", "a task"), error)
            raise PortraitError(fault) from error

    async def improve(self, what: str, kept: R, improved: Awaitable[R]) -> R:
        """A stage that is never fatal: where it fails, what it was given is kept."""
        try:
            return await improved
        except (FaceTaskFailed, DrawingFailed, QueueFull) as error:
            log.warning("portrait: %s failed: %s", what, error)
            self.warn(f"{what} failed and was left out")
            return kept

    async def draw(self, fault: Fault, asked: Pass) -> Pixels:
        """The picture of a pass, of the size that was asked for; raises PortraitError.

        A LoRA that it needs and that did not act is no less than one that is not there.
        """
        asked = self._completed(asked)
        try:
            drawn = await self._drawn(asked)
        except DrawingFailed as error:
            log.warning("portrait: a pass failed: %s", error)
            raise PortraitError(fault) from error
        if lost := drawn.lost(asked.needs):
            log.warning("portrait: drawn without its person: %s", lost)
            raise PortraitError(MODEL_ID_MALFORMED)
        for warning in drawn.warnings:
            self.warn(warning)
        return await anyio.to_thread.run_sync(resized, drawn.rgb, asked.size)

    def steps(self, name: str, otherwise: int) -> int:
        """A field's steps; few where LCM acts and nothing else was asked for."""
        asked: int = getattr(self.options, name)
        return otherwise if self.is_lcm and name not in self.options.given else asked

    def _completed(self, asked: Pass) -> Pass:
        usual = self.target.cfg_scale or asked.cfg_scale
        return replace(
            asked,
            seed=self.seed,
            checkpoint=self.target.checkpoint,
            mask_blur=max(round(MASK_BLUR * self.target.scale), 1) if asked.mask is not None else 0,
            cfg_scale=LCM_CFG_SCALE if self.is_lcm else usual,
            sampler=EULER_A if self.is_lcm else asked.sampler,
        )

    async def _drawn(self, asked: Pass) -> Drawn:
        """A unit that is refused is left out, of this pass and of the creation's later ones."""
        while True:
            units = tuple(u for u in asked.units if u.model not in self.units.unusable)
            try:
                return await self.drawer.draw(replace(asked, units=units))
            except UnitsRefused as error:
                if not units:
                    raise
                if error.number is None or error.number >= len(units):
                    self.warn(f"the control units were refused ({error}); drawn without them")
                    return await self.drawer.draw(replace(asked, units=()))
                model = units[error.number].model
                self.warn(f"the control model {model} was refused ({error}); drawn without it")
                self.units.unusable.add(model)
