"""Jobs and engines of the tests on a GPU, and how their pictures are compared."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job, SamplingOptions
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.models.device_models import LoadedCheckpoint, Loading, Models, Movable
from sdapi.engine.models.model_cache import ModelCache
from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.engine.weights.model_file import ModelFile

PLENTY = 1 << 40
MODEL = ModelFile(Path("random.safetensors"), None, 0, 0)


@dataclass(frozen=True, slots=True)
class Bench:
    """A device, and sizes that suit it."""

    device: torch.device

    @property
    def is_full_size(self) -> bool:
        return self.device.type == "cuda"

    def side(self, pixels: int) -> int:
        """A picture's side, an eighth on a CPU."""
        return pixels if self.is_full_size else pixels // 8


def engine_on(
    device: torch.device,
    dtype: torch.dtype,
    loading: Loading | None = None,
    *,
    device_bytes: int = PLENTY,
) -> Engine:
    """An engine without models."""
    cache = ModelCache[Movable](device, PLENTY, device_bytes)
    return Engine(Models(device, Precision(dtype, dtype), cache, loading or Loading()))


def put(engine: Engine, components: Components, file: ModelFile = MODEL) -> None:
    """Have the engine hold a checkpoint as if it had read it from `file`."""
    level = engine.models.loading.prepare(components)
    with engine.models.cache.use(file, lambda: LoadedCheckpoint(components, level)):
        pass


def job(side: int, **changes: Any) -> Job:
    """A square picture in four steps of Euler; `changes` are fields of the job."""
    return replace(_SMALL, width=side, height=side, **changes)


_SMALL = Job(
    id="gpu",
    prompts=("a red bird on a branch",),
    negative_prompts=("blurry",),
    seeds=(7,),
    subseeds=(0,),
    checkpoint=MODEL,
    sampler=find_sampler("Euler"),
    scheduler="Automatic",
    steps=4,
    cfg_scale=5.0,
    width=64,
    height=64,
    options=SamplingOptions(randn_source="CPU"),
)


def draw(engine: Engine, wanted: Job) -> list[Image]:
    """The job's pictures."""
    return [each.image for each in engine.run(wanted, Monitor()).images]


def psnr(ours: Image, theirs: Image) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    a, b = (np.asarray(image, dtype=np.float64) for image in (ours, theirs))
    error = float(((a - b) ** 2).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


@dataclass(slots=True)
class Peak:
    """The most memory that a block had of a GPU; of a CPU it is not known, and 0."""

    device: torch.device
    bytes: int = field(default=0, init=False)

    def __enter__(self) -> "Peak":
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
