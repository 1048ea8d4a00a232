"""LoRA training of models of full size, random weights: it works, in how much memory, how fast."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.training.job import LoraShape, TrainingJob, TrainingMonitor, TrainingPicture
from tests.gpu.drawing import MODEL, Bench, Peak, draw, engine_on, job, put
from tests.models.full_size import SD1, SDXL, Shape

pytestmark = pytest.mark.gpu

BF16, FP16 = torch.bfloat16, torch.float16
Build = Callable[..., Components]


def lesson(
    folder: Path, side: int, rank: int, *, checkpoints_gradients: bool, has_convolutions: bool
) -> TrainingJob:
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(folder / "0.png")
    return TrainingJob(
        id="gpu",
        checkpoint=MODEL,
        pictures=(TrainingPicture(folder / "0.png", "a portrait of a person"),),
        folder=folder,
        resolution=side,
        steps=6,
        checkpoint_every=6,
        shape=LoraShape(rank, rank / 2, has_convolutions=has_convolutions),
        checkpoints_gradients=checkpoints_gradients,
    )


@pytest.mark.parametrize(
    ("shape", "dtype", "side", "rank", "anew", "has_convolutions"),
    [
        pytest.param(SD1, FP16, 512, 128, False, False, id="sd1-512-fp16"),
        pytest.param(SD1, FP16, 512, 128, False, True, id="sd1-512-fp16-convolutions"),
        pytest.param(SDXL, BF16, 1024, 32, False, False, id="sdxl-1024-bf16"),
        pytest.param(SDXL, BF16, 1024, 32, True, False, id="sdxl-1024-bf16-gradient-checkpointing"),
        pytest.param(SDXL, BF16, 1024, 32, True, True, id="sdxl-1024-bf16-convolutions"),
    ],
)
def test_a_model_of_full_size_is_trained(
    device: torch.device,
    bench: Bench,
    components: Build,
    tmp_path: Path,
    shape: Shape,
    dtype: torch.dtype,
    side: int,
    rank: int,
    anew: bool,
    has_convolutions: bool,
) -> None:
    if dtype is FP16 and not bench.is_full_size:
        pytest.skip("half precision with scaled gradients needs a CUDA device")
    made = components(shape, dtype)
    engine = engine_on(device, dtype)
    put(engine, made)
    before = [p.detach().to("cpu", copy=True) for m in made.modules for p in m.parameters()]
    wanted = lesson(
        tmp_path,
        bench.side(side),
        rank,
        checkpoints_gradients=anew,
        has_convolutions=has_convolutions,
    )
    run = engine.begin_training(wanted, TrainingMonitor())
    run.update()  # encodes the picture, and lets libraries choose their kernels
    with Peak(device) as peak:
        started = time.perf_counter()
        for _ in range(4):
            run.update()
        update_s = (time.perf_counter() - started) / 4
    print(f"{update_s:.3f} s an update of four pictures, {peak.bytes / 2**30:.1f} GiB at most")
    run.update()
    loss = run.result().loss
    assert 0 < loss < 100
    run.close()
    after = (p for m in made.modules for p in m.parameters())
    assert all(torch.equal(a, b.cpu()) for a, b in zip(before, after, strict=True))
    assert draw(engine, job(bench.side(512), steps=2))
