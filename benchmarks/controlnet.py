"""ControlNet: what a second request with the same unit saves, and what a unit costs per step.

usage: python -m benchmarks.controlnet CHECKPOINT CONTROLNET [--side N] [--steps N] [--device D]

The checkpoint is a single file with its sidecar beside it, if it has one; the ControlNet is in the
original or in diffusers' layout. All sides of a ratio run in turn in one process; diffusers'
pipeline draws with the same two networks. Goals: a second request that reads nothing, far below the
first; a unit's step over one without at most the pipeline's.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionControlNetPipeline
from PIL import Image

from benchmarks.drawing import job, pipeline, timed
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.control.control_stages import ControlStages
from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import read_control_file
from sdapi.engine.control.models.controlnet import LoadedControlNet, load_controlnet
from sdapi.engine.control.unit import ControlUnit
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.models.device_models import Models
from sdapi.engine.models.model_cache import ModelCache
from sdapi.engine.weights.model_file import ModelFile

ROUNDS = 5


def alternating(runs: dict[str, Callable[[], Any]], device: torch.device) -> dict[str, float]:
    """Median seconds of each, taken in turns, so that a busy moment hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            found[name].append(timed(run, device))
    # The first round warms up.
    return {name: statistics.median(times[1:]) for name, times in found.items()}


class Bench:
    """One checkpoint, one ControlNet, and a picture of noise for it."""

    def __init__(self, engine: Engine, file: ModelFile, control: Path, side: int) -> None:
        self.engine = engine
        self.file = file
        self.side = side
        self.device = engine.models.device
        self.pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        self.unit = ControlUnit("unit", "none", ModelFile.of(control), self.pixels)

    def draw(self, steps: int, *, controlled: bool) -> None:
        """A picture, with the unit or without."""
        plain = job(self.file, self.side, steps)
        stages = (ControlStages([self.unit]),) if controlled else ()
        self.engine.run(replace(plain, stages=stages), Monitor())

    def first_over_second(self) -> float:
        """A request whose ControlNet must be read, over the next one; the checkpoint is there."""
        firsts: list[float] = []
        seconds: list[float] = []
        for _ in range(ROUNDS):
            self.engine.clear()
            self.engine.load(self.file)
            self.draw(1, controlled=False)
            firsts.append(timed(lambda: self.draw(1, controlled=True), self.device))
            seconds.append(timed(lambda: self.draw(1, controlled=True), self.device))
        return statistics.median(firsts) / statistics.median(seconds)

    def step_costs(self, steps: int) -> tuple[float, float]:
        """A unit's step over one without it: ours, and diffusers' pipelines'."""
        with self.engine.models.checkpoint(self.file) as loaded, torch.inference_mode():
            components = loaded.components
            base = BaseModel.of_unet(components.unet, components.unet.dtype)
            assert self.unit.model is not None
            control = load_controlnet(read_control_file(self.unit.model.path), base)
            assert isinstance(control, LoadedControlNet)
            control.move(self.device)
            plain = pipeline(components)
            controlled = StableDiffusionControlNetPipeline(
                vae=components.vae,
                text_encoder=None,
                tokenizer=None,
                unet=components.unet,
                controlnet=control.module,
                scheduler=EulerDiscreteScheduler.from_config(plain.scheduler.config),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
            controlled.set_progress_bar_config(disable=True)
            width = int(components.unet.config["cross_attention_dim"])
            text = torch.zeros(1, 77, width, device=self.device, dtype=components.unet.dtype)
            shared: dict[str, Any] = {
                "prompt_embeds": text,
                "negative_prompt_embeds": text,
                "num_inference_steps": steps,
                "width": self.side,
                "height": self.side,
            }
            image = Image.fromarray(self.pixels)
            times = alternating(
                {
                    "ours": lambda: self.draw(steps, controlled=False),
                    "ours with a unit": lambda: self.draw(steps, controlled=True),
                    "theirs": lambda: plain(**shared),
                    "theirs with a unit": lambda: controlled(image=image, **shared),
                },
                self.device,
            )
        return (
            times["ours with a unit"] / times["ours"],
            times["theirs with a unit"] / times["theirs"],
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("controlnet", type=Path)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    precision = Precision.choose(device, no_half=False, no_half_vae=False)
    engine = Engine(Models(device, precision, ModelCache(device, 64 << 30, 64 << 30)))
    sidecar = options.checkpoint.with_suffix(".yaml")
    file = ModelFile.of(options.checkpoint, sidecar if sidecar.is_file() else None)
    bench = Bench(engine, file, options.controlnet, options.side)
    print(f"first request over the second        {bench.first_over_second():.2f}")
    ours, theirs = bench.step_costs(options.steps)
    print(f"with a unit over without, ours        {ours:.2f}")
    print(f"with a unit over without, diffusers'  {theirs:.2f}")


if __name__ == "__main__":
    main()
