"""Loading and drawing: a checkpoint switch, a batch of eight, and steps beside diffusers' pipeline.

usage: python -m benchmarks.drawing CHECKPOINT [CHECKPOINT] [--side N] [--steps N] [--device D]
                                    [--optimize]

A checkpoint is a single file with its sidecar beside it, if it has one. Both sides of a ratio run
in turn in one process. Goals: steps at least as fast as the pipeline's, 1.25 times with --optimize
on a GPU; a warm switch far below reading the file.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from safetensors.torch import load_file

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.models.device_models import Loading, Models
from sdapi.engine.models.model_cache import ModelCache
from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.engine.weights.model_file import ModelFile

RUNS = 3


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one run, the device's work included."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def median(run: Callable[[], Any], device: torch.device) -> float:
    """Of several runs, after one that warms up."""
    run()
    return statistics.median(timed(run, device) for _ in range(RUNS))


def job(file: ModelFile, side: int, steps: int, count: int = 1) -> Job:
    return Job(
        id="benchmark",
        prompts=("a red bird on a branch",) * count,
        negative_prompts=("blurry",) * count,
        seeds=tuple(range(count)),
        subseeds=(0,) * count,
        checkpoint=file,
        sampler=find_sampler("Euler"),
        scheduler="Automatic",
        steps=steps,
        cfg_scale=7.0,
        width=side,
        height=side,
        batch_size=count,
    )


def pipeline(components: Components) -> StableDiffusionPipeline:
    """diffusers' own loop over the same UNet; texts are encoded by us for both."""
    made = StableDiffusionPipeline(
        vae=components.vae,
        text_encoder=None,
        tokenizer=None,
        unet=components.unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def steps_over_diffusers(engine: Engine, file: ModelFile, side: int, steps: int) -> float:
    device = engine.models.device
    ours = median(lambda: engine.run(job(file, side, steps), Monitor()), device)
    with engine.models.checkpoint(file) as loaded, torch.inference_mode():
        unet = loaded.components.unet
        width = int(unet.config["cross_attention_dim"])
        texts = [torch.zeros(1, 77, width, device=device, dtype=unet.dtype)] * 2
        theirs_pipeline = pipeline(loaded.components)

        def theirs() -> None:
            theirs_pipeline(
                prompt_embeds=texts[0],
                negative_prompt_embeds=texts[1],
                num_inference_steps=steps,
                width=side,
                height=side,
            )

        return median(theirs, device) / ours


def switches_over_reading(engine: Engine, files: list[ModelFile]) -> tuple[float, float]:
    """Cold and warm switches, each over reading the file's tensors."""
    device = engine.models.device
    reading = median(lambda: {k: v.clone() for k, v in load_file(files[0].path).items()}, device)

    def cold() -> None:
        engine.clear()
        engine.load(files[0])

    cold_s = median(cold, device)
    for file in files:
        engine.load(file)
    warm_s = median(lambda: [engine.load(file) for file in files], device) / len(files)
    return cold_s / reading, warm_s / reading


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--optimize", action="store_true", help="with a compiled UNet")
    options = parser.parse_args()
    device = torch.device(options.device)
    engine = Engine(
        Models(
            device,
            Precision.choose(device, no_half=False, no_half_vae=False),
            ModelCache(device, 64 << 30, 64 << 30),
            Loading(compiles=options.optimize),
        )
    )
    files = []
    for path in options.checkpoints:
        sidecar = path.with_suffix(".yaml")
        files.append(ModelFile.of(path, sidecar if sidecar.is_file() else None))
    cold, warm = switches_over_reading(engine, files)
    print(f"cold switch over reading the file  {cold:.2f}")
    print(f"warm switch over reading the file  {warm:.4f}")
    steps = steps_over_diffusers(engine, files[0], options.side, options.steps)
    print(f"pictures/s over diffusers' loop     {steps:.2f}")
    one, eight = (
        median(lambda n=n: engine.run(job(files[0], options.side, 4, n), Monitor()), device)
        for n in (1, 8)
    )
    print(f"pictures/s, batch of 8 over 1       {8 * one / eight:.2f}")


if __name__ == "__main__":
    main()
