"""What a GPU's memory makes necessary: offload, tiles, a cache of two tiers, a clear error."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.jobs.job import ModelFile
from sdapi.engine.latents import vae
from sdapi.engine.models.device_models import Loading
from sdapi.errors import OutOfMemory
from tests.gpu.drawing import MODEL, Bench, Peak, draw, engine_on, job, psnr, put
from tests.models.full_size import SD1, SDXL, Shape

pytestmark = pytest.mark.gpu

CPU, FP16 = torch.device("cpu"), torch.float16
Build = Callable[..., Components]


def move(components: Components, device: torch.device) -> None:
    """Where loading a file would have left a checkpoint, or the device."""
    for module in components.modules:
        torch.nn.Module.to(module, device)


@pytest.mark.parametrize("shape", [SD1, SDXL], ids=["sd1", "sdxl"])
def test_offloaded_model_draws_the_same_picture_in_less_memory(
    cuda: torch.device, bench: Bench, components: Build, shape: Shape
) -> None:
    made = components(shape, FP16)
    wanted = job(bench.side(512), steps=2)
    pictures, peaks = [], []
    for loading in (Loading(), Loading(medvram=True), Loading(lowvram=True)):
        move(made, CPU)
        torch.cuda.empty_cache()
        engine = engine_on(cuda, FP16, loading)
        put(engine, made)
        with Peak(cuda) as peak:
            pictures += draw(engine, wanted)
        peaks.append(peak.bytes)
        with engine.models.checkpoint(MODEL) as loaded:
            loaded.move(CPU)
    move(made, cuda)

    assert psnr(pictures[1], pictures[0]) > 50
    assert psnr(pictures[2], pictures[0]) > 50
    assert peaks[0] > peaks[1] > peaks[2]


def test_picture_above_four_megapixels_passes_the_vae_in_tiles(
    bench: Bench, components: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = components(SD1, FP16)
    engine = engine_on(bench.device, FP16)
    put(engine, made)
    if not bench.is_full_size:
        monkeypatch.setattr(vae, "TILED_FROM_PIXELS", vae.TILED_FROM_PIXELS // 64)
        monkeypatch.setattr(vae, "_TILE", vae._TILE // 8)
    width, height = bench.side(2304), bench.side(2048)

    picture = draw(engine, replace(job(width, steps=1), height=height))[0]

    assert picture.size == (width, height)
    assert np.asarray(picture).std() > 1


def test_tiles_take_less_memory_than_the_whole_and_look_like_it(
    bench: Bench, components: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = components(SD1, FP16)
    side = bench.side(1536) // 8
    latent = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    latent = latent.to(bench.device)
    if not bench.is_full_size:
        monkeypatch.setattr(vae, "_TILE", vae._TILE // 8)

    def decoded() -> tuple[int, list[np.ndarray]]:
        with torch.inference_mode(), Peak(bench.device) as peak:
            images = vae.decode(made.vae, latent, made.scale_factor)
        return peak.bytes, [np.asarray(image, dtype=np.float64) for image in images]

    whole_bytes, whole = decoded()
    monkeypatch.setattr(vae, "TILED_FROM_PIXELS", 0)
    tiled_bytes, tiled = decoded()

    assert tiled[0].shape == whole[0].shape
    # Each tile is normalised by its own mean, so the whole is met but for a little.
    assert abs(tiled[0] - whole[0]).mean() < 0.1 * 255
    assert tiled_bytes < whole_bytes or not bench.is_full_size


@contextmanager
def _room(device: torch.device, spare_bytes: int) -> Generator[None]:
    """Let this process have no more of the GPU than it holds, and a little."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = torch.cuda.memory_reserved(device) + spare_bytes
    torch.cuda.set_per_process_memory_fraction(allowed / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def test_picture_too_large_for_the_device_is_an_error_that_costs_nothing(
    cuda: torch.device, bench: Bench, components: Build
) -> None:
    made = components(SD1, FP16)
    engine = engine_on(cuda, FP16)
    put(engine, made)
    small, count = job(512), 8
    large = job(
        2048,
        prompts=("a",) * count,
        negative_prompts=("b",) * count,
        seeds=tuple(range(count)),
        subseeds=(0,) * count,
        batch_size=count,
    )
    before = draw(engine, small)[0]
    held = torch.cuda.memory_allocated(cuda)

    with _room(cuda, 3 << 30):
        with pytest.raises(OutOfMemory, match="8 x 2048x2048") as caught:
            draw(engine, large)
        put(engine, made)
        after = draw(engine, small)[0]

    assert caught.value.status == 507
    assert psnr(after, before) > 50
    # The error is still at hand, and keeps none of the failed job's tensors.
    assert torch.cuda.memory_allocated(cuda) <= held + (64 << 20)


def test_models_take_turns_on_a_device_that_holds_one(
    cuda: torch.device, bench: Bench, components: Build
) -> None:
    files = [ModelFile(Path(name), None, 0, 0) for name in ("a", "b")]
    made = [components(SD1, FP16, seed) for seed in (0, 1)]
    engine = engine_on(cuda, FP16, device_bytes=int(1.5 * made[0].size_bytes))
    for each in made:
        move(each, CPU)
    for file, each in zip(files, made, strict=True):
        put(engine, each, file)

    first = [draw(engine, job(512, checkpoint=file))[0] for file in files]
    places = [each.unet.device.type for each in made]
    again = [draw(engine, job(512, checkpoint=file))[0] for file in files]

    assert places == ["cpu", "cuda"]
    assert engine.models.cache.misses == 2
    assert psnr(first[0], first[1]) < 40
    assert all(psnr(a, b) > 50 for a, b in zip(first, again, strict=True))
