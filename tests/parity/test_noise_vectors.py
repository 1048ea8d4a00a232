"""Random numbers against the reference's, bit for bit where they are drawn on a CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sdapi.engine.sampling.noise import ImageNoise, NoiseSource, Seeds
from sdapi.engine.sampling.philox import PhiloxGenerator

RECORDED = Path(__file__).parents[1] / "golden" / "vectors" / "rng.npz"
CPU = torch.device("cpu")
SHAPE = (4, 16, 16)
IMAGES, SUBSEEDS = (1234, 1235), (7, 8)
SEEDS = (0, 1, 1234, 2**32 - 1, 2**33 + 5)
RECIPES = {
    "plain": Seeds(IMAGES, SUBSEEDS),
    "sub": Seeds(IMAGES, SUBSEEDS, 0.3),
    "resize_up": Seeds(IMAGES, SUBSEEDS, resize_from=(8, 8)),
    "resize_down": Seeds(IMAGES, SUBSEEDS, resize_from=(24, 12)),
    "all": Seeds(IMAGES, SUBSEEDS, 0.6, resize_from=(8, 24)),
    "ensd": Seeds(IMAGES, SUBSEEDS, eta_delta=31337),
}
RUNS = [
    (source, recipe)
    for source in ("CPU", "NV", "GPU")
    for recipe in RECIPES
    if recipe != "ensd" or source == "GPU"
]


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(RECORDED) as file:
        return dict(file)


@pytest.mark.parametrize("seed", SEEDS)
def test_philox_draws_as_cuda_does(recorded: dict[str, np.ndarray], seed: int):
    generator = PhiloxGenerator(seed)
    for draw, shape in (("a", (4, 8, 8)), ("b", (3, 5))):
        expected = recorded[f"philox_{seed}_{draw}"]
        assert np.abs(generator.randn(shape).numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("seed", SEEDS)
def test_cpu_generator_draws_as_recorded(recorded: dict[str, np.ndarray], seed: int):
    drawn = NoiseSource("CPU", CPU).generator(seed).randn((4, 8, 8)).numpy()
    assert np.array_equal(drawn, recorded[f"cpu_{seed}"])


@pytest.mark.parametrize(("source", "recipe"), RUNS)
def test_image_noise_is_as_recorded(recorded: dict[str, np.ndarray], source: str, recipe: str):
    noise = ImageNoise(NoiseSource(source, CPU), SHAPE, RECIPES[recipe])
    for name, draw in (("first", noise.first), ("second", noise.next), ("third", noise.next)):
        key = f"imagerng_{source}_{recipe}_{name}"
        drawn = draw().numpy()
        if key in recorded:
            assert np.abs(drawn - recorded[key]).max() < 1e-6, key
