"""A training while it runs: one update of the weights at a time, so that others get their turn."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from sdapi.engine.models.device_models import LoadedCheckpoint, Models
from sdapi.engine.models.offload import OffloadLevel
from sdapi.engine.torch_errors import telling_shortage
from sdapi.engine.training.adapters import Adapted, adapt
from sdapi.engine.training.examples import Examples
from sdapi.engine.training.job import (
    TrainingJob,
    TrainingMonitor,
    TrainingResult,
    checkpoint_path,
)
from sdapi.engine.training.lora_file import training_metadata, write_lora
from sdapi.engine.training.objective import Objective
from sdapi.engine.training.training_state import TrainingState
from sdapi.errors import ModelUnusable, NanProduced

_GPU_ACCUMULATION = 4
_MAX_GRADIENT = 1.0
#: updates whose loss and duration are shown as a mean
_LATEST = 20
_ADVICE = "try a smaller resolution or rank, or gradient checkpointing"
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Workings:
    """What exists between the begin and the end of a training."""

    adapted: Adapted
    examples: Examples
    objective: Objective
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    losses: deque[float]


@dataclass(slots=True)
class TrainingRun:
    """Begin, update until finished, close. All calls belong to the worker's thread."""

    models: Models
    job: TrainingJob
    monitor: TrainingMonitor
    _held: ExitStack = field(default_factory=ExitStack)
    _workings: _Workings | None = None
    _durations: deque[float] = field(default_factory=lambda: deque[float](maxlen=_LATEST))

    def begin(self) -> None:
        """Load the checkpoint and go on where an equal job stopped.

        Raises `ModelUnusable`, `OutOfMemory`.
        """
        self.monitor.steps = self.job.steps
        with self._telling_shortage(self.models.cache.clear), self._checkpoint() as loaded:
            _refuse_untrainable(loaded)
            self._held.enter_context(self.models.cache.hold(self.job.checkpoint))
            self._workings = self._make(loaded)
        if (state := TrainingState.load(self.job)) is not None:
            self._restore(state)

    @property
    def is_finished(self) -> bool:
        return self.monitor.step >= self.job.steps

    @property
    def is_at_hand(self) -> bool:
        """Whether an update would load and move nothing."""
        return self.models.cache.is_on_device(self.job.checkpoint)

    def update(self, *, while_drawing: bool = False) -> None:
        """Change the weights once; with it a checkpoint, when one is due.

        `while_drawing`: a job that uses the same models waits between two steps, so what is merged
        into them must be there again. Raises `NanProduced`, `OutOfMemory`.
        """
        started = time.perf_counter()
        work = self._working
        relieve = _nothing if while_drawing else self.models.cache.clear
        with (
            self._telling_shortage(relieve),
            self._checkpoint(while_drawing=while_drawing),
        ):
            loss = self._step(work)
        self.monitor.step += 1
        work.losses.append(loss)
        self._durations.append(time.perf_counter() - started)
        self.monitor.loss, self.monitor.update_s = fmean(work.losses), fmean(self._durations)
        if self.monitor.step % self.job.checkpoint_every == 0 or self.is_finished:
            self._keep()

    def suspend(self) -> None:
        """Write down what it takes to go on later."""
        if self._workings is not None and self.monitor.step > 0:
            self._state(self._workings).save(self.job)

    def result(self) -> TrainingResult:
        """What a finished training has made."""
        every, last = self.job.checkpoint_every, self.job.steps
        steps = dict.fromkeys((*range(every, last + 1, every), last))
        files = tuple((step, checkpoint_path(self.job.folder, step)) for step in steps)
        return TrainingResult(files, self.monitor.loss)

    def close(self) -> None:
        """Give the memory back; the checkpoint stays in the cache as it was."""
        self._workings = None
        self._held.close()
        if self.models.device.type == "cuda":
            torch.cuda.empty_cache()

    def _telling_shortage(self, relieve: Callable[[], None]) -> AbstractContextManager[None]:
        job = self.job
        wanted = f"a training at {job.resolution}x{job.resolution}, rank {job.shape.rank}"
        return telling_shortage(self.models.device, wanted, _ADVICE, relieve)

    @property
    def _working(self) -> _Workings:
        if self._workings is None:
            raise RuntimeError("a training is updated before its begin or after its end")
        return self._workings

    @contextmanager
    def _checkpoint(self, *, while_drawing: bool = False) -> Generator[LoadedCheckpoint]:
        """The checkpoint on the device, with its own weights only, and gradients on."""
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            self.models.checkpoint(self.job.checkpoint) as loaded,
        ):
            if while_drawing:
                with loaded.networks.lifted():
                    yield loaded
            else:
                loaded.networks.clear()
                yield loaded

    def _make(self, loaded: LoadedCheckpoint) -> _Workings:
        job, shape, components = self.job, self.job.shape, loaded.components
        adapted = adapt(components, shape, job.seed, checkpoints=job.checkpoints_gradients)
        groups = [
            {"params": adapted.parameters(of_text=False), "lr": job.learning_rate},
            {"params": adapted.parameters(of_text=True), "lr": job.text_learning_rate},
        ]
        return _Workings(
            adapted,
            Examples(job, components),
            Objective(adapted.components, self.models.device, job.resolution, shape.has_text),
            torch.optim.AdamW(
                [group for group in groups if group["params"]],
                betas=(0.9, 0.999),
                weight_decay=1e-2,
                eps=1e-8,
                fused=True,
            ),
            torch.amp.GradScaler(
                self.models.device.type, enabled=components.unet.dtype == torch.float16
            ),
            deque(maxlen=_LATEST),
        )

    def _step(self, work: _Workings) -> float:
        count = self._accumulation
        total = 0.0
        for number in range(count):
            example = work.examples.example(self.monitor.step * count + number)
            with self._autocast(work):
                loss = work.objective.loss(example)
            total += loss.item() / count
            work.scaler.scale(loss / count).backward()
        if not math.isfinite(total):
            raise NanProduced(f"the loss of update {self.monitor.step + 1} is no number")
        work.scaler.unscale_(work.optimiser)
        parameters = [p for group in work.optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, _MAX_GRADIENT)
        work.scaler.step(work.optimiser)
        work.scaler.update()
        work.optimiser.zero_grad(set_to_none=True)
        return total

    @property
    def _accumulation(self) -> int:
        default = 1 if self.models.device.type == "cpu" else _GPU_ACCUMULATION
        return self.job.accumulation or default

    def _autocast(self, work: _Workings) -> torch.autocast:
        """Half-precision networks compute in their own type, the adapters stay float32."""
        dtype = work.adapted.unet.dtype
        is_half = dtype in (torch.float16, torch.bfloat16)
        return torch.autocast(
            self.models.device.type, dtype if is_half else torch.bfloat16, enabled=is_half
        )

    def _keep(self) -> None:
        """Write a checkpoint, and what a crash after it resumes from."""
        work, step = self._working, self.monitor.step
        path = checkpoint_path(self.job.folder, step)
        family = work.adapted.components.family
        write_lora(path, work.adapted.layers, training_metadata(self.job, family, step))
        self._state(work).save(self.job)
        if self.monitor.on_checkpoint is not None:
            self.monitor.on_checkpoint(step, path)

    def _state(self, work: _Workings) -> TrainingState:
        return TrainingState(
            self.monitor.step,
            work.adapted.tensors,
            work.optimiser.state_dict(),
            work.scaler.state_dict(),
            list(work.losses),
        )

    def _restore(self, state: TrainingState) -> None:
        work = self._working
        tensors: dict[str, Tensor] = work.adapted.tensors
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(state.adapters[name])
        optimiser: dict[str, Any] = state.optimiser
        work.optimiser.load_state_dict(optimiser)
        work.scaler.load_state_dict(state.scaler)
        work.losses.extend(state.losses)
        self.monitor.step = self.monitor.resumed_at = state.step
        log.info("training %s goes on at step %d", self.job.id, state.step)


def _nothing() -> None:
    """What a job that is drawn works with is not dropped."""


def _refuse_untrainable(loaded: LoadedCheckpoint) -> None:
    parts = loaded.components
    if parts.is_inpainting or parts.is_instruct_pix2pix:
        raise ModelUnusable("a checkpoint for inpainting or editing cannot be trained on")
    if loaded.offload_level is not OffloadLevel.NONE:
        raise ModelUnusable("training needs all of a checkpoint on the GPU: leave out --medvram")
