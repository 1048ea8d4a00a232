"""ControlNet units on a GPU: the CPU's pictures, in all number types, offloaded or not."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.control.control_stages import ControlStages
from sdapi.engine.control.unit import ControlUnit, Pixels
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job, SamplingOptions
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.models.device_models import Loading, Models, Movable
from sdapi.engine.models.model_cache import ModelCache
from sdapi.engine.weights.model_file import ModelFile
from tests.engines import cpu_engine, golden_file, tiny_job
from tests.gpu.drawing import PLENTY, Bench, draw, psnr
from tests.models.controlnets import (
    build_adapter,
    build_lllite,
    control_lora_of,
    original_adapter_state,
    write_state,
)
from tests.models.ip_adapters import (
    ip_adapter,
    plus_projection,
    save_image_encoder,
    save_ip_adapter,
)

pytestmark = pytest.mark.gpu

FP32, FP16 = torch.float32, torch.float16
KINDS = (
    "controlnet",
    "control_lora",
    "t2i_adapter",
    "ip_adapter",
    "lllite",
    "reference_only",
    "reference_adain+attn",
    "inpaint_only",
    "tile_colorfix+sharp",
)


@dataclass(frozen=True, slots=True)
class Units:
    """A unit of each kind for a golden checkpoint, and a job that draws with it."""

    golden: Path
    folder: Path

    @property
    def job(self) -> Job:
        return tiny_job(
            golden_file(self.golden, "tinyA"), options=SamplingOptions(randn_source="CPU"), steps=3
        )

    def of(self, kind: str) -> ControlUnit:
        photo = self._photo("a128.png")
        if kind == "inpaint_only":
            mask = np.zeros((64, 64, 1), np.uint8)
            mask[:, 40:] = 255
            return ControlUnit("unit", kind, None, np.concatenate([photo, mask], axis=2))
        if kind in ("reference_only", "reference_adain+attn", "tile_colorfix+sharp"):
            return ControlUnit("unit", kind, None, photo, threshold_a=1.0, threshold_b=1.0)
        model = ModelFile.of(self._model(kind))
        if kind != "ip_adapter":
            return ControlUnit("unit", "none", model, photo)
        return ControlUnit(
            "unit",
            "ip-adapter_clip_sd15",
            model,
            photo,
            pictures=(photo,),
            encoder=ModelFile.of(save_image_encoder(self.folder / "encoder.safetensors")),
        )

    def _photo(self, name: str) -> Pixels:
        with Image.open(self.golden / "inputs" / name) as image:
            return np.asarray(image.convert("RGB").resize((64, 64)))

    def _model(self, kind: str) -> Path:
        if kind == "controlnet":
            return self.golden / "models" / "control_tiny_canny.safetensors"
        with cpu_engine().models.checkpoint(self.job.checkpoint) as loaded:
            unet = loaded.components.unet
        path = self.folder / f"{kind}.safetensors"
        if kind == "ip_adapter":
            return save_ip_adapter(ip_adapter(unet, plus_projection), path)
        if kind == "t2i_adapter":
            return write_state(original_adapter_state(build_adapter(unet, "full_adapter")), path)
        if kind == "lllite":
            names = {"input_blocks_1_1_transformer_blocks_0_attn1_to_q": unet.conv_in.out_channels}
            return write_state(build_lllite(names, depths=dict.fromkeys(names, 1)), path)
        return write_state(control_lora_of(unet)[0], path)


@pytest.fixture
def units(golden_models: Path, tmp_path: Path) -> Units:
    return Units(golden_models.parent, tmp_path)


def engine_with(bench: Bench, precision: Precision, **loading: bool) -> Engine:
    cache = ModelCache[Movable](bench.device, PLENTY, PLENTY)
    return Engine(Models(bench.device, precision, cache, Loading(**loading)))


def drawn(engine: Engine, job: Job, *stages: Any) -> Image.Image:
    return draw(engine, replace(job, stages=stages))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_unit_draws_what_it_draws_on_a_cpu(bench: Bench, units: Units, kind: str) -> None:
    engine, unit = engine_with(bench, Precision(FP32, FP32)), units.of(kind)

    ours = drawn(engine, units.job, ControlStages([unit]))
    expected = drawn(cpu_engine(), units.job, ControlStages([unit]))

    assert psnr(ours, expected) > 35
    assert psnr(ours, drawn(engine, units.job)) < psnr(ours, expected)


@pytest.mark.parametrize("flag", ["medvram", "lowvram"])
@pytest.mark.parametrize("kind", KINDS)
def test_unit_acts_beside_an_offloaded_checkpoint(
    bench: Bench, units: Units, kind: str, flag: str
) -> None:
    unit = units.of(kind)
    plain = engine_with(bench, Precision(FP32, FP32))
    offloaded = engine_with(bench, Precision(FP32, FP32), **{flag: True})

    ours = drawn(offloaded, units.job, ControlStages([unit]))

    assert psnr(ours, drawn(plain, units.job, ControlStages([unit]))) > 40


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("control", [FP16, FP32], ids=["half", "no-half-controlnet"])
def test_unit_acts_in_half_precision(
    cuda: torch.device, bench: Bench, units: Units, kind: str, control: torch.dtype
) -> None:
    unit = units.of(kind)
    engine = engine_with(bench, Precision(FP16, FP32, control))

    ours = drawn(engine, units.job, ControlStages([unit]))

    assert psnr(ours, drawn(cpu_engine(), units.job, ControlStages([unit]))) > 20


class Strict(ControlStages):
    """Fails at whatever waits for the GPU, once the first call has made what it keeps."""

    calls = 0

    def before_denoise(self, call: UNetCall) -> None:
        self.calls += 1
        with _NoWaiting(self.calls):
            super().before_denoise(call)

    def after_denoise(self, call: UNetCall, output: torch.Tensor) -> torch.Tensor:
        with _NoWaiting(self.calls):
            return super().after_denoise(call, output)


class _NoWaiting:
    def __init__(self, calls: int) -> None:
        self._is_strict = calls > 1

    def __enter__(self) -> None:
        torch.cuda.set_sync_debug_mode("error" if self._is_strict else "default")

    def __exit__(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", ["controlnet", "t2i_adapter", "ip_adapter", "inpaint_only"])
def test_unit_does_not_wait_for_the_device(
    cuda: torch.device, bench: Bench, units: Units, kind: str
) -> None:
    engine = engine_with(bench, Precision(FP32, FP32))

    assert drawn(engine, units.job, Strict([units.of(kind)]))
