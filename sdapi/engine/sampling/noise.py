"""Random numbers of one batch: a generator per image, so that none depends on its neighbours.

Contract: webui-generation 4. Sources: `GPU` draws on the device the model runs on, `CPU` on the
CPU, `NV` on the CPU as CUDA would. Draws are float32 `[C, H/8, W/8]` tensors.
"""

from collections import abc
from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Protocol, cast

import torch
import torchsde
from torch import Tensor
from torchsde._brownian import brownian_interval

from sdapi.engine.sampling.philox import PhiloxGenerator

Shape = tuple[int, int, int]
#: torch.Generator takes seeds of 64 bits
_SEED_MASK = 0xFFFFFFFFFFFFFFFF
_NEARLY_PARALLEL = 0.9995
_TREE_DIGITS = 6


class Generator(Protocol):
    """One image's stream of normal draws."""

    def randn(self, shape: tuple[int, ...]) -> Tensor: ...


class _TorchGenerator:
    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        self._generator = torch.Generator(device).manual_seed(_signed(seed))

    def randn(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self._device)


def _signed(seed: int) -> int:
    """torch takes 64-bit seeds as signed or unsigned; wider ones keep their low bits."""
    return seed if -(1 << 63) <= seed <= _SEED_MASK else seed & _SEED_MASK


@dataclass(frozen=True, slots=True)
class NoiseSource:
    """Where random numbers come from (`randn_source`), and where they are needed."""

    name: str
    device: torch.device

    def generator(self, seed: int) -> Generator:
        """A fresh stream for a seed."""
        if self.name == "NV":
            return PhiloxGenerator(seed)
        return _TorchGenerator(seed, self.draw_device)

    @property
    def draw_device(self) -> torch.device:
        return self.device if self.name == "GPU" else torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Seeds:
    """The seeds of the images of one batch, and how they vary."""

    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]
    subseed_strength: float = 0.0
    #: latent size (height, width) that the seeds were chosen for, None when it is the picture's own
    resize_from: tuple[int, int] | None = None
    #: option `eta_noise_seed_delta`: later draws come from seed + delta
    eta_delta: int = 0


class ImageNoise:
    """The draws of one batch: first the initial noise, then whatever the sampler asks for."""

    def __init__(self, source: NoiseSource, shape: Shape, seeds: Seeds) -> None:
        self.source = source
        self.shape = shape
        self.seeds = seeds
        self._generators = [source.generator(seed) for seed in seeds.seeds]

    def first(self) -> Tensor:
        """The initial noise [B, C, H/8, W/8]."""
        noise = torch.stack([self._initial(i) for i in range(len(self.seeds.seeds))])
        if self.seeds.eta_delta:
            self._generators = [
                self.source.generator(seed + self.seeds.eta_delta) for seed in self.seeds.seeds
            ]
        return noise.to(self.source.device)

    def next(self) -> Tensor:
        """The next draw of every image's own generator, same shape."""
        draws = [generator.randn(self.shape) for generator in self._generators]
        return torch.stack(draws).to(self.source.device)

    def _initial(self, index: int) -> Tensor:
        seed, generator = self.seeds.seeds[index], self._generators[index]
        from_shape = self._resize_shape()
        if from_shape is None:
            noise = generator.randn(self.shape)
        else:
            noise = self.source.generator(seed).randn(from_shape)
        if self.seeds.subseed_strength:
            shape = from_shape or self.shape
            other = self.source.generator(self.seeds.subseeds[index]).randn(shape)
            noise = slerp(self.seeds.subseed_strength, noise, other)
        if from_shape is not None:
            noise = paste_centred(generator.randn(self.shape), noise)
        return noise

    def _resize_shape(self) -> Shape | None:
        if self.seeds.resize_from is None:
            return None
        shape = (self.shape[0], *self.seeds.resize_from)
        return None if shape == self.shape else shape


def slerp(strength: float, low: Tensor, high: Tensor) -> Tensor:
    """Spherical interpolation of two noises [C, H, W]; angles are taken along the height axis."""
    low_unit = low / torch.norm(low, dim=1, keepdim=True)
    high_unit = high / torch.norm(high, dim=1, keepdim=True)
    dot = (low_unit * high_unit).sum(1)
    if dot.mean() > _NEARLY_PARALLEL:
        # Weights the wrong way round, as the reference has them.
        return low * strength + high * (1 - strength)
    omega = torch.acos(dot)
    so = torch.sin(omega)
    low_part = (torch.sin((1.0 - strength) * omega) / so).unsqueeze(1) * low
    return low_part + (torch.sin(strength * omega) / so).unsqueeze(1) * high


def paste_centred(target: Tensor, noise: Tensor) -> Tensor:
    """Put `noise` [C, h, w] in the middle of `target` [C, H, W]; what sticks out is cut evenly."""
    dy, dx = ((t - n) // 2 for t, n in zip(target.shape[1:], noise.shape[1:], strict=True))
    height, width = noise.shape[1:]
    rows = height if dy >= 0 else height + 2 * dy
    columns = width if dx >= 0 else width + 2 * dx
    ty, tx, ny, nx = max(dy, 0), max(dx, 0), max(-dy, 0), max(-dx, 0)
    target[:, ty : ty + rows, tx : tx + columns] = noise[:, ny : ny + rows, nx : nx + columns]
    return target


#: Held while torchsde's normal draws are replaced by the emulated ones.
_torchsde_lock = Lock()


class BrownianNoise:
    """Brownian increments, one tree for each image, scaled to unit variance (contract: 4.4).

    `shape` is an image's; with that of a batch and one seed, one tree is for all of it.
    `sigma_min` and `sigma_max` bound the whole schedule, whatever part of it is used.
    """

    def __init__(
        self,
        source: NoiseSource,
        shape: tuple[int, ...],
        seeds: Sequence[int],
        sigma_min: float,
        sigma_max: float,
    ) -> None:
        self._source = source
        # torchsde keeps times to six digits, and warns of a float32 that sticks out by the seventh.
        self._range = round(sigma_min, _TREE_DIGITS), round(sigma_max, _TREE_DIGITS)
        start = torch.zeros(shape, device=source.draw_device)
        with self._normals():  # a tree draws its end point at once
            self._trees = [
                torchsde.BrownianTree(sigma_min, start, sigma_max, entropy=_signed(seed))
                for seed in seeds
            ]

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """Unit-variance noise [B, C, H/8, W/8] for the step between two sigmas."""
        low, high = sorted(self._clamp(float(s)) for s in (sigma, sigma_next))
        sign = 1 if sigma < sigma_next else -1
        with self._normals():
            # A tree answers with more than one tensor only when asked to.
            draws = [cast("Tensor", tree(low, high)) for tree in self._trees]
        rows = draws[0] if draws[0].ndim == 4 else torch.stack(draws)
        increments = (rows * sign).to(self._source.device)
        return increments / (sigma_next - sigma).abs().sqrt()

    def _clamp(self, time: float) -> float:
        return min(max(time, self._range[0]), self._range[1])

    def _normals(self) -> AbstractContextManager[None]:
        return _emulated_normals() if self._source.name == "NV" else nullcontext()


@contextmanager
def _emulated_normals() -> abc.Generator[None]:
    """Let torchsde draw its normals from the CUDA emulation: it offers no parameter for that."""

    def randn(size: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
        return PhiloxGenerator(int(seed)).randn(size).to(device, dtype)

    names = brownian_interval.__dict__  # `_randn` is private, and read from here at every draw
    with _torchsde_lock:
        original = names["_randn"]
        names["_randn"] = randn
        try:
            yield
        finally:
            names["_randn"] = original
