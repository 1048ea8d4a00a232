"""Units that inpaint: what is kept, and what inpainting checkpoints see."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sdapi.engine.control.control_stages import ControlStages
from sdapi.engine.control.modules.inpainting import InpaintOnly, paste_back
from sdapi.engine.control.unit import ControlUnit, Pixels
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.stages import Stages, UNetCall
from sdapi.errors import NanProduced
from tests.engines import cpu_engine, golden_file


@pytest.fixture
def masked(golden: Path) -> Pixels:
    """A photo whose right part is masked."""
    mask = np.zeros((64, 64, 1), np.uint8)
    mask[:, 40:] = 255
    with Image.open(golden / "inputs" / "a128.png") as image:
        return np.concatenate([np.asarray(image.convert("RGB").resize((64, 64))), mask], axis=2)


class Inputs(Stages):
    """Keeps what a UNet was given beside the latent."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def before_denoise(self, call: UNetCall) -> None:
        assert call.image_cond is not None
        self.seen.append(call.image_cond)


def inputs_of(engine: Engine, job: Job, unit: ControlUnit) -> list[Tensor]:
    inputs = Inputs()
    engine.run(replace(job, stages=(ControlStages([unit]), inputs)), Monitor())
    return inputs.seen


def test_what_is_not_masked_is_kept(engine: Engine, job: Job, masked: Pixels):
    unit = ControlUnit("unit", "inpaint_only", None, masked)

    def drawn(unit: ControlUnit) -> Any:
        result = engine.run(replace(job, stages=(ControlStages([unit]),)), Monitor())
        return np.asarray(result.images[0].image).astype(int)

    picture, plain = drawn(unit), drawn(replace(unit, start=1.0, end=1.0))
    assert np.array_equal(picture[:, :32], masked[:, :32, :3])
    assert not np.array_equal(picture[:, 48:], masked[:, 48:, :3])
    # What is around the mask is seen while the rest is drawn.
    assert not np.array_equal(picture[:, 48:], plain[:, 48:])


def test_an_inpainting_checkpoint_sees_the_units_mask_and_picture(
    engine: Engine, golden: Path, job: Job, masked: Pixels
):
    job = replace(job, checkpoint=golden_file(golden, "tinyInpaint"), steps=4)
    unit = ControlUnit("unit", "inpaint_only", None, masked, end=0.0)
    first, *_, last = inputs_of(engine, job, unit)
    assert first.shape == (1, 5, 8, 8)
    assert torch.equal(first[0, 0, 0], torch.tensor([0.0] * 5 + [1.0] * 3))
    # Without the unit txt2img says that everything is masked.
    assert last[0, 0].min() == 1
    # Which pixels are behind the mask makes no difference.
    other = masked.copy()
    other[:, 40:, :3] = 0
    assert torch.equal(first, inputs_of(engine, job, replace(unit, hint=other))[0])


def test_a_module_that_embeds_pictures_leaves_those_inputs_alone(
    engine: Engine, golden: Path, job: Job, masked: Pixels
):
    job = replace(job, checkpoint=golden_file(golden, "tinyInpaint"))
    seen = inputs_of(engine, job, ControlUnit("unit", "tile_colorfix", None, masked))
    assert seen[0][0, 0].min() == 1


def test_a_prediction_is_changed_at_the_noise_level_of_the_model_that_made_it(
    engine: Engine, job: Job, masked: Pixels
):
    everything = masked.copy()
    everything[:, :, 3] = 0
    with engine.models.checkpoint(job.checkpoint) as loaded, torch.inference_mode():
        components = loaded.components
        sampling: Any = SimpleNamespace(components=components, job=job, is_second=False)
        control = InpaintOnly(ControlUnit("unit", "inpaint_only", None, everything), sampling)
        refiner = replace(components, alphas_cumprod=torch.full((1000,), 0.25), v_prediction=True)
        x = torch.randn(1, 4, 8, 8)
        call = UNetCall(x, torch.tensor([500.0]), 500.0, [], refiner)
        output = control.after(call, torch.randn(1, 4, 8, 8))
    # v = (signal * x - clean) / noise, Salimans and Ho 2022
    clean = 0.5 * x - 0.75**0.5 * output
    again = InpaintOnly(ControlUnit("unit", "inpaint_only", None, everything), sampling)
    torch.testing.assert_close(clean, again.changed(clean, []), atol=1e-5, rtol=0)


def test_a_vae_that_makes_nans_of_a_units_picture_is_an_error(
    engine: Engine, job: Job, masked: Pixels
):
    engine = cpu_engine()
    with engine.models.checkpoint(job.checkpoint) as loaded:
        loaded.components.vae.quant_conv.bias.data.fill_(float("nan"))
    for module in ("inpaint_only", "tile_colorfix", "reference_only"):
        unit = ControlUnit("unit", module, None, masked)
        stages = (ControlStages([unit]),)
        with pytest.raises(NanProduced, match="ControlNet failed to use VAE"):
            engine.run(replace(job, stages=stages), Monitor())


def test_pasting_back_softens_the_edge():
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, 16:, 3] = 255
    white = Image.new("RGB", (32, 32), "white")
    row = np.asarray(paste_back(white, pixels, 7))[16, :, 0].astype(int)
    assert (row[:8] == 0).all()
    assert (row[17:] == 255).all()
    assert (np.diff(row) >= 0).all()
    assert len(set(row[8:17])) > 5
    assert paste_back(Image.new("RGB", (8, 8)), pixels, 7).size == (8, 8)


class Firsts(Stages):
    """Keeps what the first call of a run was given."""

    x: Tensor | None = None

    def before_denoise(self, call: UNetCall) -> None:
        self.x = call.x.clone() if self.x is None else self.x


def first_x(engine: Engine, job: Job, *units: ControlUnit) -> Tensor:
    firsts = Firsts()
    engine.run(replace(job, stages=(ControlStages(units), firsts)), Monitor())
    assert firsts.x is not None
    return firsts.x


def test_a_filled_picture_is_in_the_noise_that_txt2img_begins_with(
    engine: Engine, job: Job, masked: Pixels
):
    unit = ControlUnit("unit", "inpaint_only+lama", None, masked)
    plain, filled = first_x(engine, job), first_x(engine, job, unit)
    others = first_x(engine, job, replace(unit, hint=masked[::-1].copy()))
    assert 0.01 < (filled - plain).abs().mean() < 0.5
    assert not torch.equal(filled, others)
    assert torch.equal(plain, first_x(engine, job, replace(unit, module="inpaint_only")))
