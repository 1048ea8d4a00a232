"""Jobs on a tiny checkpoint: batches, interruption, options that act on pictures."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.init_images import InitImages, InpaintMask, SoftInpainting
from sdapi.engine.jobs.job import Job, ModelFile, Result, SamplingOptions
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.latents import vae
from sdapi.engine.latents.preview import approximate
from sdapi.engine.models.device_models import Models
from sdapi.engine.models.model_cache import ModelCache
from sdapi.engine.sampling.sampler_names import SAMPLERS, find_sampler
from sdapi.errors import (
    BadRequest,
    DefaultModelUnusable,
    ModelUnusable,
    NanProduced,
    OutOfMemory,
    SDAPIError,
)
from tests.engines import cpu_engine, golden_file, tiny_job
from tests.models.builders import build_sd1

CPU = torch.device("cpu")
FP32 = Precision(torch.float32, torch.float32)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return cpu_engine()


@pytest.fixture(scope="module")
def tiny(golden: Path) -> Job:
    return tiny_job(golden_file(golden, "tinyA"), negative_prompts=("dog",), steps=3)


def batch(job: Job, seeds: tuple[int, ...], batch_size: int, **changes: Any) -> Job:
    count = len(seeds)
    return replace(
        job,
        prompts=job.prompts * count,
        negative_prompts=job.negative_prompts * count,
        seeds=seeds,
        subseeds=tuple(range(count)),
        batch_size=batch_size,
        n_iter=count // batch_size,
        **changes,
    )


def pixels(result: Result) -> list[np.ndarray]:
    return [np.asarray(each.image).astype(int) for each in result.images]


@dataclass
class StopAfter(Monitor):
    """Sets an event when so many steps were reported."""

    steps: int = 1
    event: Callable[[Monitor], Any] = lambda monitor: monitor.interrupted
    reported: int = 0

    def step_done(self, index: int) -> None:
        self.reported += 1
        if self.reported == self.steps:
            self.event(self).set()
        super().step_done(index)


@dataclass
class Told(Monitor):
    """Keeps what it showed after each step."""

    told: list[int] = field(default_factory=list[int])

    def step_done(self, index: int) -> None:
        super().step_done(index)
        self.told.append(self.sampling_step)


# DPM adaptive chooses its steps by what the whole batch needs.
@pytest.mark.parametrize("sampler", [s.name for s in SAMPLERS if s.name != "DPM adaptive"])
def test_each_picture_of_a_batch_is_that_of_its_seed_alone(engine: Engine, tiny: Job, sampler: str):
    tiny = replace(tiny, sampler=find_sampler(sampler))
    together = pixels(engine.run(batch(tiny, (7, 8, 9), 3), Monitor()))
    for seed, picture in zip((7, 8, 9), together, strict=True):
        (alone,) = pixels(engine.run(replace(tiny, seeds=(seed,)), Monitor()))
        assert np.abs(alone - picture).max() <= 1


def test_iterations_and_batches_give_the_same_pictures(engine: Engine, tiny: Job):
    seeds = (3, 4, 5, 6)
    one = pixels(engine.run(batch(tiny, seeds, 1), Monitor()))
    two = pixels(engine.run(batch(tiny, seeds, 2), Monitor()))
    assert max(np.abs(a - b).max() for a, b in zip(one, two, strict=True)) <= 1


def test_same_job_gives_the_same_bits(engine: Engine, tiny: Job):
    one, two = (engine.run(tiny, Monitor()) for _ in range(2))
    assert one.images[0].image.tobytes() == two.images[0].image.tobytes()


def test_interrupted_job_stops_within_a_step_and_returns_its_prediction(engine: Engine, tiny: Job):
    monitor = StopAfter(steps=2)
    result = engine.run(replace(tiny, steps=500), monitor)
    assert result.interrupted
    assert monitor.reported <= 3
    assert result.images[0].image.size == (64, 64)
    assert np.asarray(result.images[0].image).std() > 0


def test_interrupted_job_starts_no_further_batch(engine: Engine, tiny: Job):
    result = engine.run(batch(tiny, (1, 2, 3), 1), StopAfter(steps=4))
    assert [image.index for image in result.images] == [0, 1]
    assert result.interrupted


def test_job_interrupted_before_its_first_step_has_no_pictures(engine: Engine, tiny: Job):
    monitor = Monitor()
    monitor.interrupted.set()
    result = engine.run(tiny, monitor)
    assert result.images == ()
    assert result.interrupted


def test_skip_cuts_one_batch_only(engine: Engine, tiny: Job):
    tiny = replace(tiny, steps=4)
    whole = pixels(engine.run(batch(tiny, (1, 2, 3), 1), Monitor()))
    monitor = StopAfter(steps=1, event=lambda monitor: monitor.skipped)
    result = engine.run(batch(tiny, (1, 2, 3), 1), monitor)
    assert [image.index for image in result.images] == [0, 1, 2]
    assert not result.interrupted
    cut = pixels(result)
    assert np.abs(cut[0] - whole[0]).max() > 10
    assert [np.abs(a - b).max() for a, b in zip(cut[1:], whole[1:], strict=True)] == [0, 0]


def test_monitor_counts_steps_and_passes(engine: Engine, tiny: Job):
    monitor = Told()
    engine.run(batch(tiny, (1, 2), 1), monitor)
    assert monitor.told == [0, 1, 2] * 2
    assert (monitor.job_count, monitor.job_no) == (2, 2)
    # the next pass begins at nought, and so it stays after the last
    assert (monitor.sampling_steps, monitor.sampling_step) == (3, 0)
    assert monitor.latent is None


def test_finished_job_takes_back_nothing_from_the_next(engine: Engine, tiny: Job):
    before = pixels(engine.run(tiny, Monitor()))[0]
    changed = replace(tiny, options=SamplingOptions(clip_skip=3, emphasis="No norm"))
    engine.run(changed, Monitor())
    engine.run(replace(tiny, steps=500), StopAfter(steps=1))
    assert np.array_equal(pixels(engine.run(tiny, Monitor()))[0], before)


def test_picture_size_is_cut_to_whole_latent_cells(engine: Engine, tiny: Job):
    result = engine.run(replace(tiny, width=77, height=64, steps=1), Monitor())
    assert result.images[0].image.size == (72, 64)


def test_low_strength_stays_near_the_init_image(engine: Engine, tiny: Job):
    init = Image.new("RGB", (64, 64), (200, 40, 40))

    def drawn(strength: float) -> np.ndarray:
        job = replace(tiny, steps=8, init=InitImages((init,), strength))
        return pixels(engine.run(job, Monitor()))[0]

    low, high = drawn(0.0), drawn(0.9)
    assert np.abs(low - drawn(0.0)).max() == 0
    assert np.abs(low - high).mean() > 5


def test_later_init_images_are_one_for_each_picture(engine: Engine, tiny: Job):
    red, blue = (Image.new("RGB", (64, 64), c) for c in ((200, 0, 0), (0, 0, 200)))
    job = batch(tiny, (7, 7), 2, init=InitImages((red, blue), 0.3))
    one, two = pixels(engine.run(job, Monitor()))
    assert np.abs(one - two).max() > 10


def test_vae_of_its_own_replaces_the_checkpoints(engine: Engine, tiny: Job, golden: Path):
    vae = ModelFile.of(golden / "models" / "tinyvae.vae.safetensors")
    before = pixels(engine.run(tiny, Monitor()))[0]
    other = pixels(engine.run(replace(tiny, vae=vae), Monitor()))[0]
    assert np.abs(before - other).max() > 2
    assert np.array_equal(pixels(engine.run(tiny, Monitor()))[0], before)


def test_vae_file_that_is_none_is_named(engine: Engine, tiny: Job, tmp_path: Path):
    (tmp_path / "bad.vae.pt").write_text("no")
    bad = replace(tiny, vae=ModelFile.of(tmp_path / "bad.vae.pt"))
    with pytest.raises(ModelUnusable, match=r"bad\.vae\.pt"):
        engine.run(bad, Monitor())
    assert engine.run(tiny, Monitor()).images


@pytest.mark.parametrize("field", ["checkpoint", "vae"])
@pytest.mark.parametrize(
    ("is_default", "error"), [(True, DefaultModelUnusable), (False, ModelUnusable)]
)
def test_a_broken_file_is_the_callers_fault_only_if_they_named_it(
    engine: Engine,
    tiny: Job,
    tmp_path: Path,
    field: str,
    is_default: bool,
    error: type[SDAPIError],
):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"cut")
    broken = ModelFile.usable(path, is_default=is_default)
    for _ in range(2):
        with pytest.raises(error, match=r"cut\.safetensors: ") as told:
            engine.run(replace(tiny, **{field: broken}), Monitor())
        assert type(told.value) is error
    assert engine.run(tiny, Monitor()).images


def test_inpainting_checkpoint_draws_from_a_prompt(engine: Engine, tiny: Job, golden: Path):
    models = golden / "models"
    file = ModelFile.of(models / "tinyInpaint.safetensors", models / "tinyInpaint.yaml")
    result = engine.run(replace(tiny, checkpoint=file), Monitor())
    assert result.is_inpainting_model
    assert np.asarray(result.images[0].image).std() > 0


def test_checkpoint_replaced_on_disk_is_loaded_anew(engine: Engine, tiny: Job, golden: Path):
    one = tiny.checkpoint
    assert engine.has_loaded(one)
    assert not engine.has_loaded(replace(one, modified_ns=one.modified_ns + 1))


def test_memory_that_does_not_suffice_is_told_and_the_engine_goes_on(
    engine: Engine, tiny: Job, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    with monkeypatch.context() as patch:
        patch.setattr("sdapi.engine.drawing.job_run.run_sampler", fail)
        with pytest.raises(OutOfMemory, match="64x64"):
            engine.run(tiny, Monitor())
    assert engine.run(tiny, Monitor()).images


def test_error_of_a_job_that_ran_out_of_memory_keeps_none_of_its_tensors(
    engine: Engine, tiny: Job, monkeypatch: pytest.MonkeyPatch
):
    held: list[weakref.ref[torch.Tensor]] = []

    def fail(*_: object, **__: object) -> None:
        activations = torch.zeros(1000)
        held.append(weakref.ref(activations))
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")

    monkeypatch.setattr("sdapi.engine.drawing.job_run.run_sampler", fail)
    with pytest.raises(OutOfMemory) as caught:
        engine.run(tiny, Monitor())

    assert caught.value.__cause__ is not None
    assert held[0]() is None


def test_preview_is_an_eighth_of_the_picture():
    assert [p.size for p in approximate(torch.zeros(2, 4, 8, 16))] == [(16, 8), (16, 8)]
    assert approximate(torch.zeros(1, 16, 8, 8))[0].mode == "RGB"


def test_nans_fail_a_job_unless_nobody_checks(golden: Path, tiny: Job):
    def engine_with_nans(*, checks_nan: bool) -> Engine:
        made = Engine(Models(CPU, FP32, ModelCache(CPU, 1 << 30, 1 << 30)), checks_nan=checks_nan)
        with made.models.checkpoint(tiny.checkpoint) as loaded:  # no file that loads holds NaNs
            loaded.components.unet.conv_out.bias.data.fill_(float("nan"))
        return made

    with pytest.raises(NanProduced, match="--disable-nan-check"):
        engine_with_nans(checks_nan=True).run(tiny, Monitor())
    (result,) = engine_with_nans(checks_nan=False).run(tiny, Monitor()).images
    assert result.image.getextrema() == ((0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize("name", ["tinyA", "tinyInpaint"])
def test_nans_that_the_vae_makes_of_an_init_picture_are_told_as_its_own(golden: Path, name: str):
    job = tiny_job(golden_file(golden, name), init=InitImages((Image.new("RGB", (64, 64)),), 0.5))
    made = cpu_engine()
    with made.models.checkpoint(job.checkpoint) as loaded:
        loaded.components.vae.quant_conv.bias.data.fill_(float("nan"))
    with pytest.raises(NanProduced, match=r"produced in VAE.*--no-half-vae"):
        made.run(job, Monitor())
    made.checks_nan = False
    (result,) = made.run(job, Monitor()).images
    assert result.image.getextrema() == ((0, 0), (0, 0), (0, 0))


def test_emphasis_is_told_only_where_brackets_could_feel_it(engine: Engine, tiny: Job):
    options = SamplingOptions(emphasis="No norm")
    plain = replace(tiny, options=options)
    assert "Emphasis" not in engine.run(plain, Monitor()).extra
    bracketed = replace(plain, prompts=("a (cat)",))
    assert engine.run(bracketed, Monitor()).extra["Emphasis"] == "No norm"
    usual = replace(tiny, prompts=("a (cat)",))
    assert "Emphasis" not in engine.run(usual, Monitor()).extra


def masked(job: Job, mask: InpaintMask, **changes: Any) -> Job:
    """A job over a striped picture, strongly noised."""
    stripes = Image.new("RGB", (64, 64), (200, 40, 40))
    stripes.paste((20, 30, 220), (0, 0, 64, 32))
    return replace(job, steps=4, init=InitImages((stripes,), 0.9, mask=mask), **changes)


def right_half() -> Image.Image:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    return mask


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The latents that are decoded: pixels of the decoder depend on the whole latent."""
    latents: list[torch.Tensor] = []
    decode = vae.decode

    def spy(module: Any, latent: torch.Tensor, *rest: Any, **options: Any) -> list[Image.Image]:
        latents.append(latent)
        return decode(module, latent, *rest, **options)

    monkeypatch.setattr(vae, "decode", spy)
    return latents


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M", "DDIM", "UniPC"])
def test_inpainting_keeps_what_is_not_masked(
    engine: Engine, tiny: Job, sampler: str, decoded: list[torch.Tensor]
):
    tiny = replace(tiny, sampler=find_sampler(sampler))
    for mask in (Image.new("L", (64, 64)), right_half()):
        engine.run(masked(tiny, InpaintMask(mask)), Monitor())
    kept, drawn = decoded
    assert torch.equal(kept[..., :4], drawn[..., :4])
    assert (kept - drawn)[..., 4:].abs().min() > 0


def test_interrupted_inpainting_keeps_what_is_not_masked(
    engine: Engine, tiny: Job, decoded: list[torch.Tensor]
):
    engine.run(masked(tiny, InpaintMask(Image.new("L", (64, 64)))), Monitor())
    job = replace(masked(tiny, InpaintMask(right_half())), steps=500)
    assert engine.run(job, StopAfter(steps=2)).interrupted
    kept, drawn = decoded
    assert torch.equal(kept[..., :4], drawn[..., :4])


def test_soft_inpainting_tells_what_it_covers_of_each_picture(engine: Engine, tiny: Job):
    mask = InpaintMask(right_half(), rounds=False, soft=SoftInpainting())
    job = batch(masked(tiny, mask), (7, 8), 2)
    covers = [each.cover for each in engine.run(job, Monitor()).images]
    assert [cover.size for cover in covers if cover is not None] == [(8, 8), (8, 8)]
    assert covers[0].tobytes() != covers[1].tobytes()
    plain = engine.run(masked(tiny, InpaintMask(right_half())), Monitor())
    assert plain.images[0].cover is None


@pytest.fixture(scope="module")
def edit_job(tmp_path_factory: pytest.TempPathFactory, tiny: Job) -> Job:
    """An instruct-pix2pix checkpoint with a picture to edit."""
    path = tmp_path_factory.mktemp("edit") / "edit.safetensors"
    file = ModelFile.of(build_sd1(in_channels=8).write(path))
    init = InitImages((Image.effect_noise((64, 64), 60).convert("RGB"),), 0.8)
    return replace(tiny, checkpoint=file, init=init)


def test_editing_checkpoint_follows_its_picture_by_a_scale_of_its_own(
    engine: Engine, edit_job: Job
):
    def drawn(scale: float | None) -> np.ndarray:
        assert edit_job.init is not None
        init = replace(edit_job.init, image_cfg_scale=scale)
        result = engine.run(replace(edit_job, init=init), Monitor())
        assert result.is_editing_model
        return pixels(result)[0]

    assert np.array_equal(drawn(None), drawn(1.0))
    assert np.abs(drawn(None) - drawn(4.0)).max() > 2


def test_editing_checkpoint_takes_no_and_unless_its_scale_is_one(engine: Engine, edit_job: Job):
    assert edit_job.init is not None
    job = replace(edit_job, prompts=("a cat AND a dog",))
    assert engine.run(job, Monitor()).images
    scaled = replace(job, init=replace(edit_job.init, image_cfg_scale=2.0))
    with pytest.raises(BadRequest, match="AND is not supported"):
        engine.run(scaled, Monitor())


def test_image_cfg_scale_does_nothing_for_other_checkpoints(engine: Engine, tiny: Job):
    init = InitImages((Image.new("RGB", (64, 64), "red"),), 0.5)
    plain = engine.run(replace(tiny, init=init), Monitor())
    scaled = engine.run(replace(tiny, init=replace(init, image_cfg_scale=3.0)), Monitor())
    assert np.array_equal(pixels(plain)[0], pixels(scaled)[0])
    assert not scaled.is_editing_model


def test_picture_too_small_for_a_model_is_refused_by_its_size(engine: Engine, tiny: Job):
    with pytest.raises(BadRequest, match=r"^width, height: 1 x 8x8 is too small"):
        engine.run(replace(tiny, width=8, height=8), Monitor())
    assert engine.run(tiny, Monitor()).images
