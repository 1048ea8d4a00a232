"""The same seed is the same picture wherever it is drawn, and noise is the same everywhere."""

from pathlib import Path

import pytest
import torch

from sdapi.engine.jobs.job import ModelFile, SamplingOptions
from sdapi.engine.sampling.noise import BrownianNoise, NoiseSource
from sdapi.engine.sampling.philox import PhiloxGenerator
from tests.gpu.drawing import draw, engine_on, job, psnr

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
#: latents of 512x512 and 1024x1024 pixels
SHAPES = [(4, 64, 64), (4, 128, 128)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 1234, 2**40 + 5])
def test_emulated_noise_is_what_the_gpu_draws(
    cuda: torch.device, shape: tuple[int, int, int], seed: int
) -> None:
    ours, theirs = PhiloxGenerator(seed), torch.Generator(cuda).manual_seed(seed)
    for _ in range(3):
        drawn = torch.randn(shape, generator=theirs, device=cuda).cpu()
        assert torch.allclose(ours.randn(shape), drawn, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_of_the_cpu_is_the_same_beside_a_gpu(
    device: torch.device, shape: tuple[int, int, int]
) -> None:
    ours, theirs = NoiseSource("CPU", device).generator(7), NoiseSource("CPU", CPU).generator(7)
    assert torch.equal(ours.randn(shape), theirs.randn(shape))


@pytest.mark.parametrize("name", ["CPU", "NV"])
def test_brownian_noise_is_the_same_beside_a_gpu(device: torch.device, name: str) -> None:
    sigma, sigma_next = torch.tensor(5.0), torch.tensor(2.0)
    both = [
        BrownianNoise(NoiseSource(name, where), (4, 64, 64), [7], 0.03, 14.6)(sigma, sigma_next)
        for where in (device, CPU)
    ]
    assert torch.allclose(both[0].cpu(), both[1], atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "limit_db"), [(torch.float32, 35), (torch.float16, 25)], ids=["fp32", "fp16"]
)
@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_picture_of_a_gpu_is_that_of_a_cpu(
    cuda: torch.device, golden_models: Path, dtype: torch.dtype, limit_db: float, source: str
) -> None:
    path = golden_models / "tinyA.safetensors"
    wanted = job(
        128,
        checkpoint=ModelFile.of(path, path.with_suffix(".yaml")),
        options=SamplingOptions(randn_source=source),
        steps=8,
    )
    theirs = draw(engine_on(CPU, torch.float32), wanted)[0]
    ours = draw(engine_on(cuda, dtype), wanted)[0]
    assert psnr(ours, theirs) > limit_db
