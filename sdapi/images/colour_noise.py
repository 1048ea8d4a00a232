"""Noise in the colours and the structure of a picture, for where it has nothing yet.

Contract: webui-scripts 2, "Colour noise".
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: a mask's mean over channels above which a pixel is filled, and below which it is a model
_FILLED: Final = 1e-6
_MODEL: Final = 1e-3
_SEED: Final = 0

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def fill_with_noise(
    image: Image.Image, mask: Image.Image, *, exponent: float, colour_variation: float
) -> Image.Image:
    """The picture with noise of its own spectrum and colours where the mask is white.

    `exponent` is how fast details fade (lower shows more), `colour_variation` the share of noise
    that differs between channels. Both pictures are RGB and of one size.
    """
    pixels, shares = (np.asarray(each.convert("RGB")) / 255.0 for each in (image, mask))
    grey = shares.mean(axis=2)
    noise = _shaped_noise(pixels, shares, grey, exponent, colour_variation)
    filled, model = grey > _FILLED, grey < _MODEL
    for channel in range(3):
        values, wanted = noise[..., channel][filled], pixels[..., channel][model]
        noise[filled, channel] = _matched(values, wanted)
    mixed = np.clip(pixels * (1.0 - shares) + noise * shares, 0.0, 1.0)
    return Image.fromarray((mixed * 255.0).astype(np.uint8))


def _shaped_noise(
    pixels: Floats, shares: Floats, grey: Floats, exponent: float, colour_variation: float
) -> Floats:
    """Noise [H, W, 3] in 0…1 that has the phases of the picture, and its amplitudes to a power."""
    windowed = pixels * (1.0 - grey)[..., None]
    if (top := windowed.max()) > 0:
        windowed /= top
    spectrum = _forward(windowed + pixels.mean() * shares)
    amplitude = np.abs(spectrum)
    # A coefficient of exactly zero has no phase.
    phase = np.divide(spectrum, amplitude, out=np.ones_like(spectrum), where=amplitude > 0)
    draws = np.random.default_rng(_SEED).random(pixels.shape)
    draws = colour_variation * draws + (1.0 - colour_variation) * draws.mean(axis=2)[..., None]
    noise = _backward(_forward(draws) * _window(grey.shape)[..., None]).real
    shaped = _backward(np.abs(_forward(noise)) ** 2 * amplitude**exponent * phase).real
    shaped -= shaped.min()
    return shaped / top if (top := shaped.max()) > 0 else shaped


def _window(shape: tuple[int, ...]) -> Floats:
    """What each frequency counts, [H, W], the lowest in the middle."""
    height, width = shape
    shorter = min(shape)
    rows = (2.0 * np.arange(height) / height - 1.0) * height / shorter
    columns = (2.0 * np.arange(width) / width - 1.0) * width / shorter
    return 1.0 / ((rows**2 + 1.0)[:, None] * (columns**2 + 1.0)[None, :])


def _forward(values: NDArray[Any]) -> NDArray[np.complex128]:
    """The orthonormal spectrum of each channel, shifted so that frequency 0 is in the middle."""
    shifted = np.fft.fftshift(values, axes=(0, 1))
    return np.fft.ifftshift(np.fft.fft2(shifted, axes=(0, 1), norm="ortho"), axes=(0, 1))


def _backward(values: NDArray[Any]) -> NDArray[np.complex128]:
    shifted = np.fft.fftshift(values, axes=(0, 1))
    return np.fft.ifftshift(np.fft.ifft2(shifted, axes=(0, 1), norm="ortho"), axes=(0, 1))


def _matched(values: Floats, wanted: Floats) -> Floats:
    """`values` changed by a monotonous curve so that they are distributed as `wanted` is."""
    if values.size == 0 or wanted.size == 0:
        return values
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    levels, level_counts = np.unique(wanted, return_counts=True)
    quantiles = counts.cumsum() / values.size
    curve = np.interp(quantiles, level_counts.cumsum() / wanted.size, levels)
    return curve[places]
