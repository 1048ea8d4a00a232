"""Reference units on the golden checkpoint: pictures in the style of another, without a model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sdapi.engine.control.control_stages import ControlStages
from sdapi.engine.control.unit import ControlMode, ControlUnit, Pixels
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Hypertile, ModelFile, TileOptions
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.models.device_models import Models
from sdapi.errors import BadRequest
from tests.engines import tiny_job
from tests.servers import GOLDEN

MODULES = ("reference_only", "reference_adain", "reference_adain+attn")


def picture(name: str = "a128.png") -> Pixels:
    image = Image.open(GOLDEN / "inputs" / name).convert("RGB").resize((64, 64))
    return np.asarray(image)


def unit(module: str = "reference_only", **changes: Any) -> ControlUnit:
    made = ControlUnit("unit 0", module, None, picture(), pictures=(picture(),))
    return replace(made, **changes)


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("module", MODULES)
def test_unit_changes_the_picture_and_leaves_nothing_behind(
    draw: Any, models: Models, checkpoint: ModelFile, module: str
) -> None:
    before = draw()[0]

    styled = draw(unit(module))[0]
    after = draw()[0]

    assert difference(styled, before) > 0
    assert torch.equal(after, before)
    with models.checkpoint(checkpoint) as loaded:
        modules = list(loaded.components.unet.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)


@pytest.mark.parametrize("module", MODULES)
def test_weight_0_equals_no_unit(draw: Any, module: str) -> None:
    assert torch.equal(draw(unit(module, weight=0.0))[0], draw()[0])


@pytest.mark.parametrize("module", MODULES)
def test_same_request_gives_the_same_picture(draw: Any, module: str) -> None:
    assert torch.equal(draw(unit(module))[0], draw(unit(module))[0])


@pytest.mark.parametrize("module", MODULES)
def test_rows_of_a_batch_are_independent(draw: Any, module: str) -> None:
    both = {
        "prompts": ("a cat", "a dog"),
        "negative_prompts": ("", ""),
        "seeds": (7, 8),
        "subseeds": (0, 0),
        "batch_size": 2,
    }

    together = draw(unit(module), **both)
    alone = draw(unit(module), prompts=("a dog",), seeds=(8,))

    assert difference(together[1], alone[0]) <= 1


def test_more_weight_reaches_more_layers(draw: Any) -> None:
    made = [draw(unit(weight=weight))[0] for weight in (0.0, 0.3, 0.7, 1.0)]

    assert len({each.numpy().tobytes() for each in made}) == len(made)


def test_another_reference_gives_another_picture(draw: Any) -> None:
    other = unit(hint=picture("b128.png"))

    assert difference(draw(other)[0], draw(unit())[0]) > 0


def test_fidelity_counts_in_balanced_mode_alone(draw: Any) -> None:
    def drawn(mode: ControlMode, fidelity: float) -> Tensor:
        return draw(unit(mode=mode, threshold_a=fidelity))[0]

    balanced = [drawn(ControlMode.BALANCED, fidelity) for fidelity in (0.0, 1.0)]
    prompt = [drawn(ControlMode.PROMPT, fidelity) for fidelity in (0.0, 1.0)]
    control = [drawn(ControlMode.CONTROL, fidelity) for fidelity in (0.0, 1.0)]

    assert difference(*balanced) > 0
    assert torch.equal(prompt[0], prompt[1])
    assert torch.equal(control[0], control[1])
    assert torch.equal(prompt[0], balanced[0])
    assert torch.equal(control[0], balanced[1])


def test_full_fidelity_leaves_negative_prompts_alone(models: Models, checkpoint: ModelFile) -> None:
    """What the UNet says of a negative prompt is then what it says without a reference."""
    seen: list[Tensor] = []

    class Watching(ControlStages):
        def after_denoise(self, call: Any, output: Tensor) -> Tensor:
            output = super().after_denoise(call, output)
            unconds = [i for i, row in enumerate(call.rows) if row.is_uncond]
            seen.append(output[unconds].clone())
            return output

    for units in ([unit(threshold_a=1.0)], []):
        job = tiny_job(checkpoint, steps=1, stages=(Watching(units),))
        Engine(models).run(job, Monitor())

    assert difference(seen[0], seen[1]) < 1e-5


def test_window_of_half_the_steps_equals_full_control_of_those(
    models: Models, checkpoint: ModelFile
) -> None:
    seen: list[list[Tensor]] = []

    class Watching(ControlStages):
        def on_step(self, index: int, denoised: Tensor | None) -> None:
            super().on_step(index, denoised)
            assert denoised is not None
            steps.append(denoised.clone())

    for end in (0.49, 1.0):
        steps: list[Tensor] = []
        stages = Watching([unit("reference_adain+attn", end=end)])
        Engine(models).run(tiny_job(checkpoint, steps=6, stages=(stages,)), Monitor())
        seen.append(steps)

    half, full = seen
    assert all(torch.equal(a, b) for a, b in zip(half[:3], full[:3], strict=True))
    assert not torch.equal(half[-1], full[-1])


def test_two_references_count_both(draw: Any) -> None:
    first, second = unit(), unit(hint=picture("b128.png"))

    both = draw(first, second)[0]

    assert difference(both, draw(first)[0]) > 0
    assert difference(both, draw(second)[0]) > 0


def test_hypertile_beside_shared_attention_is_refused(draw: Any) -> None:
    tiles = Hypertile(unet=TileOptions(enabled=True))

    with pytest.raises(BadRequest, match="reference_only cannot be used with Hypertile"):
        draw(unit(), hypertile=tiles)

    assert draw(unit("reference_adain"), hypertile=tiles)


def test_merged_tokens_beside_a_reference_are_drawn(draw: Any) -> None:
    assert draw(unit("reference_adain+attn"), token_merging_ratio=0.5)
