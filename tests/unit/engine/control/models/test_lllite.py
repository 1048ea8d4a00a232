"""ControlNet-LLLite of random weights on the golden checkpoint, against its formula."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdapi.engine.control.control_stages import ControlStages
from sdapi.engine.control.unit import ControlMode, ControlUnit, Pixels
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.stages import Stages, UNetCall
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import BadRequest, ModelUnusable
from tests.engines import cpu_engine, golden_file, tiny_job
from tests.models.controlnets import State, build_lllite, write_state

#: names of the original layout, diffusers' names, and how often the picture is halved there
PLACES = {
    "input_blocks_1_1_transformer_blocks_0_attn1_to_q": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        1,
    ),
    "input_blocks_5_1_transformer_blocks_0_attn2_to_q": (
        "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_q",
        2,
    ),
    "input_blocks_7_1_transformer_blocks_0_attn1_to_v": (
        "down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_v",
        3,
    ),
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return cpu_engine()


@pytest.fixture
def job(golden: Path) -> Job:
    return tiny_job(golden_file(golden, "tinyA"))


def unet_of(engine: Engine, job: Job) -> Any:
    with engine.models.checkpoint(job.checkpoint) as loaded:
        return loaded.components.unet


@pytest.fixture
def state(engine: Engine, job: Job) -> State:
    unet = unet_of(engine, job)
    widths = {name: unet.get_submodule(place).in_features for name, (place, _) in PLACES.items()}
    return build_lllite(widths, depths={name: depth for name, (_, depth) in PLACES.items()})


@pytest.fixture
def unit(state: State, tmp_path: Path) -> ControlUnit:
    path = write_state(state, tmp_path / "lllite.safetensors")
    return ControlUnit("unit", "none", ModelFile.of(path), noise())


def noise(side: int = 64) -> Pixels:
    return np.random.default_rng(4).integers(0, 256, (side, side, 3), np.uint8)


class Calls(Stages):
    """Keeps each call of the UNet and what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[UNetCall, Tensor]] = []

    def after_denoise(self, call: UNetCall, output: Tensor) -> Tensor:
        self.calls.append((call, output.clone()))
        return output


def calls_of(engine: Engine, job: Job, *units: ControlUnit) -> list[tuple[UNetCall, Tensor]]:
    calls = Calls()
    engine.run(replace(job, stages=(ControlStages(units), calls)), Monitor())
    return calls.calls


class Beside(nn.Module):
    """A layer and what the file says of it, by the published formula."""

    def __init__(self, layer: nn.Module, state: State, name: str, hint: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.weights = {
            key.removeprefix(f"lllite_unet_{name}."): value
            for key, value in state.items()
            if key.startswith(f"lllite_unet_{name}.")
        }
        self.hint = hint

    def _part(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def forward(self, x: Tensor) -> Tensor:
        seen, number = self.hint, 0
        while f"conditioning1.{number}.weight" in self.weights:
            weight, bias = self._part(f"conditioning1.{number}")
            seen = F.conv2d(seen if number == 0 else seen.relu(), weight, bias, weight.shape[-1])
            number += 2
        tokens = seen.flatten(2).transpose(1, 2).expand(len(x), -1, -1)
        inner = F.linear(x, *self._part("down.0")).relu()
        inner = F.linear(torch.cat([tokens, inner], dim=2), *self._part("mid.0")).relu()
        return self.layer(x + 0.7 * F.linear(inner, *self._part("up.0")))


def test_output_is_that_of_the_published_formula(
    engine: Engine, job: Job, state: State, unit: ControlUnit
):
    peer = copy.deepcopy(unet_of(engine, job))
    hint = torch.from_numpy(noise().astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    for name, (place, _) in PLACES.items():
        parent, _, leaf = place.rpartition(".")
        beside = Beside(peer.get_submodule(place), state, name, hint)
        setattr(peer.get_submodule(parent), leaf, beside)

    call, ours = calls_of(engine, job, replace(unit, weight=0.7))[0]
    cross = torch.stack([row.cond.cross for row in call.rows])
    with torch.inference_mode():
        expected = peer(call.x, call.t, encoder_hidden_states=cross).sample

    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    assert (ours - calls_of(engine, job)[0][1]).abs().max() > 1e-2


def test_control_mode_leaves_negative_prompts_alone(engine: Engine, job: Job, unit: ControlUnit):
    (_, plain), (_, ours) = (
        calls_of(engine, job, *units)[0]
        for units in ((), (replace(unit, mode=ControlMode.CONTROL),))
    )
    torch.testing.assert_close(ours[1], plain[1], atol=1e-5, rtol=0)
    assert (ours[0] - plain[0]).abs().max() > 1e-3


def test_weight_0_and_a_region_of_nothing_equal_no_unit(
    engine: Engine, job: Job, unit: ControlUnit
):
    plain = calls_of(engine, job)[-1][1]
    nowhere = replace(unit, region=np.zeros((64, 64), np.float32))
    assert torch.equal(calls_of(engine, job, replace(unit, weight=0.0))[-1][1], plain)
    torch.testing.assert_close(calls_of(engine, job, nowhere)[-1][1], plain, atol=1e-5, rtol=0)


def test_odd_sizes_are_drawn(engine: Engine, job: Job, unit: ControlUnit):
    odd = replace(job, width=72, height=88)
    hint = np.random.default_rng(4).integers(0, 256, (88, 72, 3), np.uint8)
    assert calls_of(engine, odd, replace(unit, hint=hint))


def test_nothing_is_left_in_the_unet(engine: Engine, job: Job, unit: ControlUnit):
    calls_of(engine, job, unit)
    assert not any(m._forward_pre_hooks for m in unet_of(engine, job).modules())


def test_what_it_cannot_do_is_told(
    engine: Engine, job: Job, state: State, unit: ControlUnit, tmp_path: Path
):
    with pytest.raises(BadRequest, match=r"unit: .*token merging"):
        calls_of(engine, replace(job, token_merging_ratio=0.5), unit)
    with pytest.raises(BadRequest, match=r"unit: .*advanced_weighting"):
        calls_of(engine, job, replace(unit, advanced=(1.0,) * 13))
    elsewhere = {key.replace("blocks_0", "blocks_9"): value for key, value in state.items()}
    other = ModelFile.of(write_state(elsewhere, tmp_path / "other.safetensors"))
    with pytest.raises(ModelUnusable, match="unit: other: this checkpoint has no layer"):
        calls_of(engine, job, replace(unit, model=other))
    narrow = build_lllite({name: 8 for name in PLACES}, depths=dict.fromkeys(PLACES, 1))
    wrong = ModelFile.of(write_state(narrow, tmp_path / "narrow.safetensors"))
    with pytest.raises(ModelUnusable, match="unit: a ControlNet-LLLite for another checkpoint"):
        calls_of(engine, job, replace(unit, model=wrong))
