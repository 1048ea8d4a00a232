"""Models of the published sizes draw on a GPU, in both half types."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.jobs.job import ModelFile, SamplingOptions
from sdapi.engine.networks.selection import NetworkFiles
from sdapi.errors import NanProduced
from tests.gpu.drawing import Bench, draw, engine_on, job, psnr, put
from tests.models.full_size import SD1, SDXL, Shape

pytestmark = pytest.mark.gpu

FP16, BF16 = torch.float16, torch.bfloat16
Build = Callable[..., Components]


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("side", [512, 1024])
@pytest.mark.parametrize("shape", [SD1, SDXL], ids=["sd1", "sdxl"])
def test_full_size_model_draws_a_picture_and_the_same_one_again(
    bench: Bench, components: Build, shape: Shape, side: int, dtype: torch.dtype
) -> None:
    engine = engine_on(bench.device, dtype)
    put(engine, components(shape, dtype))
    wanted = job(bench.side(side))

    first, again = draw(engine, wanted)[0], draw(engine, wanted)[0]

    assert first.size == (bench.side(side),) * 2
    assert np.asarray(first).std() > 1
    assert psnr(first, again) > 50


def test_picture_does_not_depend_on_its_batch(bench: Bench, components: Build) -> None:
    engine = engine_on(bench.device, FP16)
    put(engine, components(SD1, FP16))
    side = bench.side(512)

    alone = draw(engine, job(side, seeds=(8,)))[0]
    batch = draw(
        engine,
        job(
            side,
            prompts=("a red bird on a branch",) * 2,
            negative_prompts=("blurry",) * 2,
            seeds=(7, 8),
            subseeds=(0, 0),
            batch_size=2,
        ),
    )

    assert psnr(batch[1], alone) > 35


@contextmanager
def _overflowing(components: Components) -> Generator[None]:
    """Let the VAE's first layer answer with more than float16 can hold."""
    kept = components.vae.decoder.conv_in
    original = kept.weight.clone()
    kept.weight.mul_(2e4)
    try:
        yield
    finally:
        torch.nn.Module.to(components.vae, original.dtype)
        kept.weight.copy_(original)


def test_vae_that_overflows_in_float16_is_widened(bench: Bench, components: Build) -> None:
    made = components(SD1, FP16)
    engine = engine_on(bench.device, FP16)
    put(engine, made)

    with _overflowing(made):
        picture = draw(engine, job(bench.side(512)))[0]
        assert made.vae.dtype == torch.float32

    assert np.asarray(picture).std() > 1


def test_vae_that_may_not_be_widened_fails_and_the_next_job_draws(
    bench: Bench, components: Build
) -> None:
    made = components(SD1, FP16)
    engine = engine_on(bench.device, FP16)
    put(engine, made)
    strict = SamplingOptions(randn_source="CPU", auto_vae_precision=False)

    with _overflowing(made), pytest.raises(NanProduced, match="VAE"):
        draw(engine, job(bench.side(512), options=strict))

    assert np.asarray(draw(engine, job(bench.side(512), options=strict))[0]).std() > 1


def test_lora_acts_and_leaves_no_trace_on_the_device(
    bench: Bench, components: Build, tmp_path: Path
) -> None:
    made = components(SD1, FP16)
    engine = engine_on(bench.device, FP16)
    put(engine, made)
    before = {name: weight.clone() for name, weight in made.unet.state_dict().items()}
    file = _write_lora(made.unet, tmp_path / "strong.safetensors")
    wanted = job(bench.side(512), networks=NetworkFiles(loras={"strong": file}))

    plain = draw(engine, wanted)[0]
    with_lora = draw(engine, replace(wanted, prompts=("a red bird <lora:strong:1>",)))[0]
    plain_again = draw(engine, wanted)[0]

    assert psnr(plain, with_lora) < 40
    assert psnr(plain, plain_again) > 50
    after = made.unet.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def _write_lora(unet: torch.nn.Module, path: Path) -> ModelFile:
    """Rank 4, for the layers of every attention."""
    tensors: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear) and ".attn" in name:
            key = "lora_unet_" + name.replace(".", "_")
            down = torch.randn(4, module.in_features, generator=generator)
            up = torch.randn(module.out_features, 4, generator=generator)
            tensors[f"{key}.lora_down.weight"] = down.half()
            tensors[f"{key}.lora_up.weight"] = up.half()
    save_file(tensors, path)
    return ModelFile.of(path)
