"""Steps a second on a GPU, beside diffusers' own pipeline over the same UNet in the same run.

usage: python -m benchmarks.gpu_drawing [--optimize near] [--only CASE ...] [--repeats N]
                                        [--device D]

Models of SD1.5's and SDXL's size with random float16 weights are made on the device. Texts are
encoded beforehand, and a step's time is the difference between a long and a short run, so that what
happens once for a picture does not count. `--optimize near` compiles the UNet for our side and
counts what is compiled anew after a LoRA was merged. Goals: 1.0 eager, 1.25 compiled, nothing
compiled anew. On a CPU (`--device cpu`) models are small, in float32, and figures mean nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from torch._dynamo.utils import counters

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.models.compilation import compile_unet
from tests.gpu.drawing import engine_on, job, put
from tests.models.full_size import SD1, SDXL, Shape, build, shrunk

EAGER_GOAL, COMPILED_GOAL = 1.0, 1.25


@dataclass(frozen=True, slots=True)
class Case:
    """What is drawn, and the steps of a short and of a long run."""

    name: str
    shape: Shape
    side: int
    batch: int
    steps: tuple[int, int]


CASES = (
    Case("sd1-512-b1", SD1, 512, 1, (5, 25)),
    Case("sd1-512-b4", SD1, 512, 4, (5, 25)),
    Case("sdxl-1024-b1", SDXL, 1024, 1, (4, 14)),
)


class Sides:
    """Our loop and diffusers', ready to draw a case with one set of weights."""

    def __init__(self, components: Components, case: Case, side: int) -> None:
        self.components = components
        self.case = case
        self.device = components.unet.device
        self.engine: Engine = engine_on(self.device, components.unet.dtype)
        put(self.engine, components)
        self._side = side
        self._pipeline = _pipeline(components)
        self._texts = _texts(components, case.batch)

    def ours(self, steps: int, batch: int | None = None) -> None:
        """Draw with our loop."""
        count = batch or self.case.batch
        wanted = job(
            self._side,
            steps=steps,
            prompts=("a red bird on a branch",) * count,
            negative_prompts=("blurry",) * count,
            seeds=tuple(range(count)),
            subseeds=(0,) * count,
            batch_size=count,
        )
        self.engine.run(wanted, Monitor())

    def theirs(self, steps: int) -> None:
        """Draw with diffusers' pipeline, up to the latent."""
        with torch.inference_mode():
            self._pipeline(
                num_inference_steps=steps,
                width=self._side,
                height=self._side,
                guidance_scale=5.0,
                output_type="latent",
                **self._texts,
            )

    def steps_per_s(self, draw: Callable[[int], None]) -> float:
        """Of one short and one long run."""
        short, long = self.case.steps
        short_s, long_s = self.seconds(lambda: draw(short)), self.seconds(lambda: draw(long))
        return (long - short) / (long_s - short_s)

    def seconds(self, run: Callable[[], Any]) -> float:
        """Of one run, the device's work included."""
        start = time.perf_counter()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


def _pipeline(components: Components) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    parts: dict[str, Any] = {
        "vae": components.vae,
        "text_encoder": None,
        "tokenizer": None,
        "unet": components.unet,
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        "feature_extractor": None,
    }
    if components.family is Family.SDXL:
        made = StableDiffusionXLPipeline(**parts, text_encoder_2=None, tokenizer_2=None)
    else:
        made = StableDiffusionPipeline(**parts, safety_checker=None, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def _texts(components: Components, batch: int) -> dict[str, torch.Tensor]:
    """Encoded prompts; what they say does not matter for the time."""
    unet = components.unet

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, device=unet.device, dtype=unet.dtype)

    width = int(unet.config["cross_attention_dim"])
    texts = {"prompt_embeds": random(77, width), "negative_prompt_embeds": random(77, width)}
    if components.family is Family.SDXL:
        pooled = components.text_encoders[-1].width
        texts["pooled_prompt_embeds"] = random(pooled)
        texts["negative_pooled_prompt_embeds"] = random(pooled)
    return texts


def compare(sides: Sides, repeats: int) -> None:
    """Print both sides' steps a second, run in turn, and their ratio."""
    sides.ours(2)
    sides.theirs(2)
    pairs = [
        (sides.steps_per_s(sides.ours), sides.steps_per_s(sides.theirs)) for _ in range(repeats)
    ]
    ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    _print(f"{sides.case.name} eager", ours, theirs, ratio, EAGER_GOAL)


def compare_compiled(sides: Sides, repeats: int) -> None:
    """Print our steps a second with a compiled UNet over theirs without."""
    sides.theirs(2)
    theirs = statistics.median(sides.steps_per_s(sides.theirs) for _ in range(repeats))
    compile_unet(sides.components.unet)
    compiling_s = sides.seconds(lambda: sides.ours(2))
    ours = statistics.median(sides.steps_per_s(sides.ours) for _ in range(repeats))
    _print(f"{sides.case.name} compiled", ours, theirs, ours / theirs, COMPILED_GOAL)
    print(f"  compiling took {compiling_s:.0f} s", flush=True)
    before = _graphs()
    _change_weights(sides.components.unet)
    sides.ours(2)
    print(f"  graphs {before}, compiled anew after a LoRA: {_graphs() - before}", flush=True)


def _graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def _change_weights(unet: torch.nn.Module) -> None:
    """What merging a LoRA does to the weights, see `sdapi.engine.networks.merge`."""
    with torch.inference_mode():
        for name, module in unet.named_modules():
            if isinstance(module, torch.nn.Linear) and ".attn" in name:
                module.weight.copy_(module.weight * 1.01)


def batch_gain(sides: Sides) -> None:
    """Print how many times more pictures a second a batch of eight draws than single ones."""
    for count in (1, 8):
        sides.ours(2, count)
    one_s, eight_s = (sides.seconds(lambda n=n: sides.ours(20, n)) for n in (1, 8))
    print(
        f"{'sd1-512 pictures/s, batch 8 over 1':36} {8 / eight_s:8.2f} {1 / one_s:8.2f} "
        f"{8 * one_s / eight_s:6.2f}",
        flush=True,
    )


def _print(name: str, ours: float, theirs: float, ratio: float, goal: float) -> None:
    print(f"{name:36} {ours:8.2f} {theirs:8.2f} {ratio:6.2f}  goal {goal}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--optimize", choices=["near"], help="compile the UNet for our side")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    is_gpu = device.type == "cuda"
    dtype = torch.float16 if is_gpu else torch.float32
    print(torch.cuda.get_device_name(device) if is_gpu else "a CPU, with small models", flush=True)
    print(f"{'':36} {'ours':>8} {'theirs':>8} {'ratio':>6}", flush=True)
    for case in CASES:
        if options.only and case.name not in options.only:
            continue
        shape = case.shape if is_gpu else shrunk(case.shape)
        side = case.side if is_gpu else case.side // 8
        sides = Sides(build(shape, device, dtype), case, side)
        if options.optimize:
            compare_compiled(sides, options.repeats)
            continue
        compare(sides, options.repeats)
        if case.name == "sd1-512-b1":
            batch_gain(sides)


if __name__ == "__main__":
    main()
