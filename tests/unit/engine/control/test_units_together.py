"""Units beside one another, and what is left when one of them cannot be made."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.control.control_stages import ControlStages
from sdapi.engine.control.unit import ControlUnit, Pixels
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.stages import Stages
from sdapi.engine.models.compilation import compile_unet
from sdapi.engine.models.device_models import Models
from sdapi.engine.models.model_cache import ModelCache
from sdapi.engine.weights.model_file import ModelFile
from sdapi.engine.weights.state_dict import read_state_dict
from sdapi.errors import BadRequest, ModelUnusable
from tests.engines import cpu_engine
from tests.models.controlnets import control_lora_of, write_state
from tests.models.ip_adapters import (
    ip_adapter,
    plain_projection,
    save_image_encoder,
    save_ip_adapter,
)

CPU, FP32, BF16 = torch.device("cpu"), torch.float32, torch.bfloat16


def load(golden: Path, name: str) -> Pixels:
    with Image.open(golden / "inputs" / name) as image:
        return np.asarray(image.convert("RGB").resize((64, 64)))


def reference(pixels: Pixels, module: str = "reference_adain", **changes: Any) -> ControlUnit:
    return replace(ControlUnit("reference", module, None, pixels, pictures=(pixels,)), **changes)


def picture(engine: Engine, job: Job, *units: ControlUnit) -> np.ndarray[Any, Any]:
    job = replace(job, stages=(ControlStages(units),))
    return np.asarray(engine.run(job, Monitor()).images[0].image).astype(int)


class Latest(Stages):
    """Keeps the latest prediction."""

    latent = torch.zeros(0)

    def on_step(self, index: int, denoised: torch.Tensor | None) -> None:
        assert denoised is not None
        self.latent = denoised


def predicted(engine: Engine, job: Job, *units: ControlUnit) -> torch.Tensor:
    latest = Latest()
    engine.run(replace(job, stages=(ControlStages(units), latest)), Monitor())
    return latest.latent


def unet_of(engine: Engine, job: Job) -> nn.Module:
    with engine.models.checkpoint(job.checkpoint) as loaded:
        return loaded.components.unet


def hooks_of(module: nn.Module) -> list[Any]:
    return [m for m in module.modules() if m._forward_hooks or m._forward_pre_hooks]


@pytest.mark.parametrize("module", ["reference_only", "reference_adain", "reference_adain+attn"])
def test_references_count_alike_in_either_order(
    engine: Engine, job: Job, golden: Path, photo: Pixels, module: str
):
    one = reference(photo, module, threshold_a=0.0)
    other = reference(load(golden, "b128.png"), module, threshold_a=1.0)
    both, turned = predicted(engine, job, one, other), predicted(engine, job, other, one)
    # Sums in another order round otherwise, and guidance makes more of it.
    torch.testing.assert_close(both, turned, atol=5e-3, rtol=0)
    for alone in (predicted(engine, job, one), predicted(engine, job, other)):
        assert (both - alone).abs().max() > 0.1


def test_a_reference_given_twice_counts_once(engine: Engine, job: Job, photo: Pixels):
    unit = reference(photo, threshold_a=0.5)
    once, twice = predicted(engine, job, unit), predicted(engine, job, unit, unit)
    torch.testing.assert_close(once, twice, atol=1e-5, rtol=0)


def test_a_reference_passes_without_a_prompt_picture_in_either_order(
    engine: Engine, job: Job, golden: Path, photo: Pixels, tmp_path: Path
):
    adapter = ip_adapter(unet_of(engine, job), plain_projection)
    prompt = ControlUnit(
        "ip-adapter",
        "ip-adapter_clip_sd15",
        ModelFile.of(save_ip_adapter(adapter, tmp_path / "adapter.safetensors")),
        photo,
        pictures=(load(golden, "b128.png"),),
        encoder=ModelFile.of(save_image_encoder(tmp_path / "encoder.safetensors")),
    )
    style = reference(photo, "reference_adain+attn")
    both, turned = picture(engine, job, prompt, style), picture(engine, job, style, prompt)
    assert np.array_equal(both, turned)
    assert not np.array_equal(both, picture(engine, job, style))


def test_a_unit_that_cannot_be_made_leaves_nothing_hooked(
    engine: Engine, job: Job, photo: Pixels, tmp_path: Path
):
    wrong = tmp_path / "wrong.safetensors"
    write_state({"weight": torch.zeros(1)}, wrong)
    units = [reference(photo), ControlUnit("bad", "none", ModelFile.of(wrong), photo)]
    with pytest.raises(ModelUnusable, match="bad: wrong"):
        picture(engine, job, *units)
    assert hooks_of(unet_of(engine, job)) == []


def test_what_is_left_out_is_told_in_the_answer_once(
    engine: Engine, job: Job, photo: Pixels, tmp_path: Path
):
    wrong = tmp_path / "wrong.safetensors"
    write_state({"weight": torch.zeros(1)}, wrong)
    bad = ControlUnit("unit 1", "none", ModelFile.of(wrong), photo)
    stages = ControlStages([bad], tolerates_failures=True)
    twice = replace(
        job,
        n_iter=2,
        prompts=job.prompts * 2,
        negative_prompts=job.negative_prompts * 2,
        seeds=(7, 8),
        subseeds=(0, 0),
        stages=(stages,),
    )
    (told,) = engine.run(twice, Monitor()).warnings
    assert told.startswith("drawn without unit 1: wrong.safetensors: ")


def test_a_half_made_unit_is_taken_away_when_it_is_left_out(
    engine: Engine, job: Job, photo: Pixels, tmp_path: Path
):
    state, _ = control_lora_of(unet_of(engine, job))  # a model that works
    model = ModelFile.of(write_state(state, tmp_path / "lora.safetensors"))
    unit = ControlUnit("unit", "reference_only", model, photo)
    tiled = replace(job, hypertile=replace(job.hypertile, unet=on(job.hypertile.unet)))
    with pytest.raises(BadRequest, match="Hypertile"):
        picture(engine, tiled, unit)
    left_out = ControlStages([unit], tolerates_failures=True)
    drawn = engine.run(replace(tiled, stages=(left_out,)), Monitor())
    assert len(drawn.warnings) == 1
    plain = engine.run(tiled, Monitor()).images[0].image
    assert np.array_equal(np.asarray(drawn.images[0].image), np.asarray(plain))


def on(options: Any) -> Any:
    return replace(options, enabled=True)


def test_a_control_lora_runs_in_its_own_number_type(job: Job, photo: Pixels, tmp_path: Path):
    """`--no-half-controlnet`: the checkpoint is in half precision and control models are not."""
    cache = ModelCache[Any](CPU, 1 << 30, 1 << 30)
    engine = Engine(Models(CPU, Precision(BF16, FP32, control=FP32), cache))
    state, _ = control_lora_of(unet_of(cpu_engine(), job))
    model = ModelFile.of(write_state(state, tmp_path / "lora.safetensors"))
    unit = ControlUnit("unit", "none", model, photo)
    controlled = picture(engine, job, unit)
    assert not np.array_equal(controlled, picture(engine, job, replace(unit, weight=0.0)))


@pytest.mark.parametrize("module", ["reference_only", "reference_adain"])
def test_units_act_in_a_compiled_unet_too(job: Job, photo: Pixels, module: str):
    plain, compiled = cpu_engine(), cpu_engine()
    compile_unet(unet_of(compiled, job), backend="eager")
    without = picture(compiled, job)
    assert np.array_equal(without, picture(plain, job))
    styled = picture(compiled, job, reference(photo, module))
    assert np.array_equal(styled, picture(plain, job, reference(photo, module)))
    assert not np.array_equal(styled, without)
    # What was compiled serves the next job.
    assert np.array_equal(picture(compiled, job), without)


@pytest.mark.parametrize(
    "key", ["input_hint_block.0.weight", "input_blocks.0.0.weight", "middle_block_out.0.weight"]
)
def test_a_model_of_torn_shapes_is_told_as_such(
    engine: Engine, job: Job, golden: Path, photo: Pixels, tmp_path: Path, key: str
):
    state = read_state_dict(golden / "models" / "control_tiny_canny.safetensors")
    (torn,) = (name for name in state if name.endswith(key))
    path = write_state(state | {torn: torch.zeros(3)}, tmp_path / "torn.safetensors")
    with pytest.raises(ModelUnusable, match=r"unit: .*torn"):
        picture(engine, job, ControlUnit("unit", "none", ModelFile.of(path), photo))
