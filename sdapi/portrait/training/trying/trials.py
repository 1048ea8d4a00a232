"""Tries a training's weights out while it goes on: which steps look most like the person."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import anyio.to_thread

from sdapi.errors import SDAPIError
from sdapi.portrait.faces.processes import FaceProcesses, FaceTaskFailed
from sdapi.portrait.faults import PASSING
from sdapi.portrait.models.whole_files import write_whole
from sdapi.portrait.training import ranking
from sdapi.portrait.training.photos.study import recognise
from sdapi.portrait.training.ranking import Trial
from sdapi.portrait.training.training_order import TrainingOrder
from sdapi.portrait.training.trying.validation import Template, Validator
from sdapi.portrait.training.work_folder import Prepared

#: what a network raises while it draws, besides errors of the service
_FAILURES = (FaceTaskFailed, OSError, SDAPIError, RuntimeError, ValueError)
log = logging.getLogger(__name__)

#: step and file of a checkpoint; None after the last one
Written = asyncio.Queue[tuple[int, Path] | None]


@dataclass(slots=True)
class Trials:
    """The trials of one training. What fails is logged and costs itself alone."""

    order: TrainingOrder
    prepared: Prepared
    validator: Validator
    processes: FaceProcesses
    _templates: Sequence[Template] = field(default_factory=list[Template])

    async def of(self, written: Written) -> list[Trial]:
        """Those of every checkpoint, in the order they are written. Raises what passes."""
        trials: list[Trial] = []
        if not self.order.plan.has_trials:
            return trials
        while (entry := await written.get()) is not None:
            step, path = entry
            if any(trial.step == step for trial in trials):
                continue
            # Without templates the checkpoint's turn comes again when all are written.
            for number, template in enumerate(await self._known_templates()):
                trials.append(await self._scored(Trial(step, number, None), template, path))
            for beaten in ranking.beaten_trials(trials):
                await anyio.to_thread.run_sync(self.order.work.drop_weights, beaten)
        return trials

    async def _known_templates(self) -> Sequence[Template]:
        if not self._templates:
            try:
                reference = await anyio.Path(self.order.work.artefacts.reference).read_bytes()
                sex = self.order.request.sex
                self._templates = await self.validator.templates(sex, reference)
            except PASSING:
                raise
            except _FAILURES as error:
                log.warning("there is no template for trial pictures: %s", error)
        return self._templates

    async def _scored(self, trial: Trial, template: Template, lora: Path) -> Trial:
        """A trial with its score; one that fails, or shows no face, has none."""
        path = anyio.Path(self.order.work.trial_path(trial))
        try:
            if not await path.is_file():
                name = f"{self.order.work.path.name}-{trial.step}"
                data = await self.validator.draw(template, self.order.caption, lora, name)
                await anyio.to_thread.run_sync(write_whole, Path(path), data)
            embedding = await self.processes.run(recognise, await path.read_bytes())
            if embedding is None:
                return trial
            vectors, metric = self.prepared.vectors, self.prepared.metric
            score = ranking.trial_score(embedding, vectors, metric)
        except PASSING:
            raise
        except _FAILURES as error:
            log.warning("the trial picture of step %d failed: %s", trial.step, error)
            return trial
        log.info("portrait %s: likeness %.3f at step %d", self.order.model_id, score, trial.step)
        return replace(trial, score=score)
