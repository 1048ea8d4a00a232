"""CUDA's normal random numbers, computed on the CPU (contract: webui-generation 4.3).

Philox 4x32 with ten rounds (Salmon et al. 2011), then Box-Muller on the first two words of each
output.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_ROUNDS = 10
_UNIT = np.float32(2.3283064e-10)
_ANGLE = np.float32(2.3283064e-10 * 6.2831855)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)

_Words = NDArray[np.uint32]


class PhiloxGenerator:
    """The state of one CUDA generator: a 64-bit seed and a count of the draws so far."""

    def __init__(self, seed: int) -> None:
        self.seed = seed & 0xFFFFFFFFFFFFFFFF
        self.draws = 0

    def randn(self, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normal values, float32."""
        count = int(np.prod(shape))
        counter = [np.zeros(count, np.uint32) for _ in range(4)]
        counter[0][:] = self.draws
        counter[2] = np.arange(count, dtype=np.uint32)
        self.draws += 1
        first, second = _philox(counter, self.seed)
        u = first * _UNIT + _UNIT / np.float32(2)
        v = second * _ANGLE + _ANGLE / np.float32(2)
        values = np.sqrt(-2.0 * np.log(u)) * np.sin(v)
        return torch.from_numpy(values.reshape(shape).astype(np.float32))


def _philox(counter: list[_Words], seed: int) -> tuple[_Words, _Words]:
    key = [np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)]
    with np.errstate(over="ignore"):
        for turn in range(_ROUNDS):
            if turn:
                key = [key[0] + _KEY_STEPS[0], key[1] + _KEY_STEPS[1]]
            high0, low0 = _multiply(counter[0], _MULTIPLIERS[0])
            high1, low1 = _multiply(counter[2], _MULTIPLIERS[1])
            counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
    return counter[0], counter[1]


def _multiply(words: _Words, factor: np.uint64) -> tuple[_Words, _Words]:
    product = words.astype(np.uint64) * factor
    return (product >> _SHIFT).astype(np.uint32), (product & _LOW).astype(np.uint32)
