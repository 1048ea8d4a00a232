"""An engine on the CPU, and a small job for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job, ModelFile
from sdapi.engine.models.device_models import Models
from sdapi.engine.models.model_cache import ModelCache
from sdapi.engine.sampling.sampler_names import find_sampler


def cpu_models() -> Models:
    """The models of a CPU in float32, with a gigabyte for each tier."""
    cpu = torch.device("cpu")
    precision = Precision(torch.float32, torch.float32)
    return Models(cpu, precision, ModelCache(cpu, 1 << 30, 1 << 30))


def cpu_engine() -> Engine:
    """A fresh engine on the CPU."""
    return Engine(cpu_models())


def golden_file(golden: Path, name: str) -> ModelFile:
    """A golden checkpoint with its sidecar."""
    models = golden / "models"
    return ModelFile.of(models / f"{name}.safetensors", models / f"{name}.yaml")


def tiny_job(checkpoint: ModelFile, **changes: Any) -> Job:
    """A picture of 64x64 pixels in two steps of Euler; `changes` are fields of the job."""
    job = Job(
        id="a",
        prompts=("a cat",),
        negative_prompts=("",),
        seeds=(7,),
        subseeds=(0,),
        checkpoint=checkpoint,
        sampler=find_sampler("Euler"),
        scheduler="Automatic",
        steps=2,
        cfg_scale=5.0,
        width=64,
        height=64,
    )
    return replace(job, **changes)
