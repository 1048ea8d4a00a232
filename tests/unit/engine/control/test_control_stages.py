"""What units do to a picture, on a tiny checkpoint with ControlNets of random weights."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdapi.engine.control.control_stages import ControlStages
from sdapi.engine.control.unit import ControlMode, ControlUnit, HiresUse, Pixels
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import HiresPass, Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.stages import Stages, UNetCall
from sdapi.engine.latents.latent_modes import LATENT_MODES
from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import BadRequest, ModelUnusable
from tests.engines import tiny_job
from tests.models.builders import FEW_WORDS, build_sdxl
from tests.models.controlnets import (
    build_adapter,
    build_controlnet,
    build_union,
    control_lora_of,
    original_state,
    write_state,
)

DOWN, MIDDLE = "down_block_additional_residuals", "mid_block_additional_residual"
INSIDE = "down_intrablock_additional_residuals"
STEPS = 4


@pytest.fixture
def job(checkpoint: ModelFile) -> Job:
    return tiny_job(checkpoint, steps=STEPS)


def noise(seed: int, size: int = 64, channels: int = 3) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (size, size, channels), np.uint8)


def batch_of(job: Job, seeds: tuple[int, ...]) -> Job:
    count = len(seeds)
    return replace(
        job,
        batch_size=count,
        prompts=job.prompts * count,
        negative_prompts=job.negative_prompts * count,
        seeds=seeds,
        subseeds=(0,) * count,
    )


@pytest.fixture
def edges(golden: Path) -> ControlUnit:
    model = ModelFile.of(golden / "models" / "control_tiny_canny.safetensors")
    return ControlUnit("edges", "none", model, noise(1))


@pytest.fixture
def depth(golden: Path) -> ControlUnit:
    model = ModelFile.of(golden / "models" / "control_tiny_depth.safetensors")
    return ControlUnit("depth", "none", model, noise(2))


@pytest.fixture(params=["controlnet", "union", "control-lora", "adapter", "light adapter"])
def any_unit(
    request: pytest.FixtureRequest, engine: Engine, job: Job, tmp_path: Path
) -> ControlUnit:
    """A unit of every kind, made for the golden checkpoint's UNet."""
    with engine.models.checkpoint(job.checkpoint) as loaded:
        unet = loaded.components.unet
        state = {
            "controlnet": lambda: original_state(build_controlnet(unet)),
            "union": lambda: build_union(unet).state_dict(),
            "control-lora": lambda: control_lora_of(unet)[0],
            "adapter": lambda: build_adapter(unet, "full_adapter").state_dict(),
            "light adapter": lambda: build_adapter(unet, "light_adapter").state_dict(),
        }[request.param]()
    path = write_state(state, tmp_path / "any.safetensors")
    return ControlUnit("unit", "none", ModelFile.of(path), noise(5), union_type=3)


def test_a_unit_of_any_kind_acts_and_leaves_no_trace(
    engine: Engine, job: Job, any_unit: ControlUnit, depth: ControlUnit
):
    plain = picture(engine, job)
    alone = picture(engine, job, any_unit)
    assert not np.array_equal(alone, plain)
    assert np.array_equal(picture(engine, job, replace(any_unit, weight=0.0)), plain)
    both = picture(engine, job, any_unit, depth)
    assert np.array_equal(picture(engine, job, depth, any_unit), both)
    assert not np.array_equal(both, alone)
    misses = engine.models.cache.misses
    assert np.array_equal(picture(engine, job, any_unit), alone)
    assert engine.models.cache.misses == misses
    assert np.array_equal(picture(engine, job), plain)


def test_a_unit_of_any_kind_obeys_its_window_and_its_mode(
    engine: Engine, job: Job, any_unit: ControlUnit
):
    whole, half = watched(engine, job, any_unit), watched(engine, job, replace(any_unit, end=0.25))
    for step in range(STEPS // 2):
        assert torch.equal(half.predicted[step], whole.predicted[step])
    assert half.arguments[-1] == {}
    control = watched(engine, job, replace(any_unit, mode=ControlMode.CONTROL)).arguments[0]
    for residual in control.get(DOWN) or control[INSIDE]:
        assert residual[0].any()
        assert not residual[1].any()


def test_a_unit_of_any_kind_sees_pictures_of_a_batch_alone(
    engine: Engine, job: Job, any_unit: ControlUnit
):
    batch = batch_of(job, (7, 8))
    for image, seed in zip(picture(engine, batch, any_unit), (7, 8), strict=True):
        alone = picture(engine, replace(job, seeds=(seed,)), any_unit)[0]
        assert np.abs(image.astype(int) - alone).max() <= 1


def test_a_union_model_wants_to_know_what_its_map_shows(engine: Engine, job: Job, tmp_path: Path):
    with engine.models.checkpoint(job.checkpoint) as loaded:
        state = build_union(loaded.components.unet).state_dict()
    model = ModelFile.of(write_state(state, tmp_path / "union.safetensors"))
    unit = ControlUnit("unit 0", "none", model, noise(5))
    with pytest.raises(BadRequest, match=r"unit 0: union_control_type.*OpenPose, Depth"):
        picture(engine, job, unit)
    with pytest.raises(BadRequest, match="says Tile"):
        picture(engine, job, replace(unit, union_type=6))


class Watching(Stages):
    """Keeps what every UNet call was given, and every step's prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.arguments: list[dict[str, Any]] = []
        self.predicted: list[Tensor] = []

    def before_denoise(self, call: UNetCall) -> None:
        self.arguments.append({k: list(v) if k == INSIDE else v for k, v in call.arguments.items()})

    def on_step(self, index: int, denoised: Tensor | None) -> None:
        assert denoised is not None
        self.predicted.append(denoised.clone())


def watched(engine: Engine, job: Job, *units: ControlUnit) -> Watching:
    watching = Watching()
    engine.run(replace(job, stages=(ControlStages(units), watching)), Monitor())
    return watching


def picture(engine: Engine, job: Job, *units: ControlUnit) -> np.ndarray[Any, Any]:
    controlled = replace(job, stages=(ControlStages(units),)) if units else job
    return np.stack([np.asarray(i.image) for i in engine.run(controlled, Monitor()).images])


def first_residuals(engine: Engine, job: Job, *units: ControlUnit) -> list[Tensor]:
    arguments = watched(engine, job, *units).arguments[0]
    return [*arguments[DOWN], arguments[MIDDLE]]


def test_a_unit_changes_the_picture_and_weight_0_does_not(
    engine: Engine, job: Job, edges: ControlUnit
):
    plain = picture(engine, job)
    assert not np.array_equal(picture(engine, job, edges), plain)
    assert np.array_equal(picture(engine, job, replace(edges, weight=0.0)), plain)


def test_a_model_is_left_as_it_was(engine: Engine, job: Job, edges: ControlUnit):
    def digest() -> str:
        with engine.models.checkpoint(job.checkpoint) as loaded:
            tensors = loaded.components.unet.state_dict().values()
            data = b"".join(t.numpy().tobytes() for t in tensors)
            hooked = [m for m in loaded.components.unet.modules() if m._forward_pre_hooks]
        assert hooked == []
        return hashlib.sha256(data).hexdigest()

    plain, before = picture(engine, job), digest()
    picture(engine, job, edges)
    assert digest() == before
    assert np.array_equal(picture(engine, job), plain)


def test_a_window_of_the_first_half_is_full_control_there(
    engine: Engine, job: Job, edges: ControlUnit
):
    job = replace(job, steps=6)
    whole = watched(engine, job, edges)
    half = watched(engine, job, replace(edges, end=0.5))
    active = [bool(arguments) for arguments in half.arguments]
    # The webui's progress lags by one call.
    assert active == [True] * 5 + [False]
    for step in range(3):
        assert torch.equal(half.predicted[step], whole.predicted[step])
    assert not torch.equal(half.predicted[-1], whole.predicted[-1])


@pytest.mark.parametrize("sampler", ["Heun", "DPM++ SDE"])
def test_a_windows_start_counts_steps_of_samplers_that_call_twice(
    engine: Engine, job: Job, edges: ControlUnit, sampler: str
):
    job = replace(job, sampler=find_sampler(sampler))
    calls = watched(engine, job, replace(edges, start=0.5)).arguments
    first = next(i for i, arguments in enumerate(calls) if arguments)
    # The second call of step 2, of 4.
    assert first == 5


def test_two_units_add_up_in_any_order(
    engine: Engine, job: Job, edges: ControlUnit, depth: ControlUnit
):
    both = first_residuals(engine, job, edges, depth)
    alone = first_residuals(engine, job, edges), first_residuals(engine, job, depth)
    for total, one, other in zip(both, *alone, strict=True):
        torch.testing.assert_close(total, one + other, atol=1e-6, rtol=0)
    forward, backward = picture(engine, job, edges, depth), picture(engine, job, depth, edges)
    assert np.array_equal(forward, backward)


def test_control_mode_softens_and_leaves_the_negative_alone(
    engine: Engine, job: Job, edges: ControlUnit
):
    balanced = first_residuals(engine, job, edges)
    prompt = first_residuals(engine, job, replace(edges, mode=ControlMode.PROMPT))
    control = first_residuals(engine, job, replace(edges, mode=ControlMode.CONTROL))
    for i, (full, soft, only) in enumerate(zip(balanced, prompt, control, strict=True)):
        torch.testing.assert_close(soft, full * 0.825 ** (12 - i))
        # The first row is the prompt's, the second the negative's.
        torch.testing.assert_close(only[0], soft[0])
        assert not only[1].any()


def test_advanced_weights_stand_for_all_others(engine: Engine, job: Job, edges: ControlUnit):
    advanced = tuple(i / 10 for i in range(13))
    weighted = first_residuals(engine, job, replace(edges, weight=2.0, advanced=advanced))
    for factor, one, full in zip(
        advanced, weighted, first_residuals(engine, job, edges), strict=True
    ):
        torch.testing.assert_close(one, full * factor)
    with pytest.raises(BadRequest, match=r"advanced_weighting has 2 weights.*needs 13"):
        picture(engine, job, replace(edges, advanced=(1.0, 1.0)))


def test_a_region_keeps_a_unit_out_of_the_rest(engine: Engine, job: Job, edges: ControlUnit):
    region = np.zeros((64, 64), np.float32)
    region[:, 32:] = 1
    full = first_residuals(engine, job, edges)[0]
    part = first_residuals(engine, job, replace(edges, region=region))[0]
    assert not part[..., :3].any()
    torch.testing.assert_close(part[..., 5:], full[..., 5:])


def test_a_masked_hint_is_minus_one(engine: Engine, job: Job, edges: ControlUnit):
    pixels = np.dstack([noise(3), np.full((64, 64), 255, np.uint8)])
    masked = first_residuals(engine, job, replace(edges, hint=pixels))
    others = np.dstack([noise(4), pixels[:, :, 3]])
    same = first_residuals(engine, job, replace(edges, hint=others))
    assert all(torch.equal(a, b) for a, b in zip(masked, same, strict=True))


def with_hires(job: Job) -> Job:
    asked = HiresPass(
        upscaler=LATENT_MODES[0],
        size=(128, 128),
        denoising_strength=0.7,
        steps=2,
        sampler=job.sampler,
        scheduler=job.scheduler,
        prompts=job.prompts,
        negative_prompts=job.negative_prompts,
        checkpoint=job.checkpoint,
    )
    return replace(job, steps=2, hires=asked)


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (HiresUse.BOTH, [True] * 4),
        (HiresUse.FIRST, [True, True, False, False]),
        (HiresUse.SECOND, [False, False, True, True]),
    ],
)
def test_a_unit_acts_in_the_passes_it_is_meant_for(
    engine: Engine, job: Job, edges: ControlUnit, use: HiresUse, expected: Sequence[bool]
):
    unit = replace(edges, hires_use=use, second_hint=noise(1, 128))
    calls = watched(engine, with_hires(job), unit).arguments
    assert [bool(arguments) for arguments in calls] == expected


def test_lines_are_softened_in_the_second_pass(engine: Engine, job: Job, edges: ControlUnit):
    unit = replace(edges, second_hint=noise(1, 128), hires_use=HiresUse.SECOND)
    plain = watched(engine, with_hires(job), unit).arguments[2]
    softened = watched(engine, with_hires(job), replace(unit, module="canny")).arguments[2]
    torch.testing.assert_close(softened[DOWN][0], plain[DOWN][0] * 0.825**12)


def test_a_model_is_read_once(engine: Engine, job: Job, edges: ControlUnit):
    picture(engine, job, edges)
    misses = engine.models.cache.misses
    picture(engine, job, edges)
    assert engine.models.cache.misses == misses


def test_a_model_of_another_family_fails_the_job_and_no_other(
    engine: Engine, job: Job, edges: ControlUnit, tmp_path: Path
):
    state = original_state(build_controlnet(build_sdxl(words=FEW_WORDS).unet))
    path = write_state(state, tmp_path / "xl.safetensors")
    wrong = replace(edges, model=ModelFile.of(path))
    with pytest.raises(ModelUnusable, match=r"edges: .*xl\(SDXL\) is not compatible"):
        picture(engine, job, wrong)
    tolerant = replace(job, stages=(ControlStages([wrong], tolerates_failures=True),))
    result = np.asarray(engine.run(tolerant, Monitor()).images[0].image)
    assert np.array_equal(result, picture(engine, job)[0])
