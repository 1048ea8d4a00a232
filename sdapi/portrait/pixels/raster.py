"""Filters and colour spaces of OpenCV with the types that are used here."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.portrait.faces.face import Mask, Pixels

Floats = NDArray[np.float32]
#: of any precision: Python's numbers widen what they meet, to a type checker at least
Values = NDArray[np.floating[Any]]
#: blurs reach this many standard deviations
_REACH: Final = 3.0
_LEAST_SIGMA: Final = 0.2


def blurred(values: Values, sigma: float) -> Floats:
    """A Gaussian blur; none below a fifth of a pixel."""
    if sigma < _LEAST_SIGMA:
        return np.array(values, np.float32)
    side = 2 * int(np.ceil(_REACH * sigma)) + 1
    return np.asarray(
        cv2.GaussianBlur(
            np.asarray(values, np.float32), (side, side), sigma, borderType=cv2.BORDER_REPLICATE
        ),
        np.float32,
    )


def blurred_within(values: Values, mask: Mask, sigma: float) -> Floats:
    """A blur of the pixels of a mask that knows nothing of the others (normalised convolution)."""
    weight = blurred(mask, sigma)
    return np.asarray(blurred(values * mask, sigma) / np.maximum(weight, 1e-4), np.float32)


def box_blurred(values: Values, side: int) -> Floats:
    """The mean over a square."""
    side = max(side, 1)
    return np.asarray(
        cv2.boxFilter(
            np.asarray(values, np.float32), -1, (side, side), borderType=cv2.BORDER_REPLICATE
        ),
        np.float32,
    )


def grown(mask: Values, radius: float) -> Mask:
    """A mask dilated by a disc."""
    return _back(cv2.dilate(_bytes_of(mask), _disc(radius)))


def shrunk(mask: Values, radius: float) -> Mask:
    """A mask eroded by a disc; the picture's border counts as outside."""
    values = _bytes_of(mask)
    return _back(cv2.erode(values, _disc(radius), borderType=cv2.BORDER_CONSTANT, borderValue=0.0))


def closed(mask: Values, radius: float) -> Mask:
    """Without the holes and gaps that a disc does not fit into."""
    disc = _disc(radius)
    return _back(cv2.erode(cv2.dilate(_bytes_of(mask), disc), disc))


def opened(mask: Values, radius: float) -> Mask:
    """Without the specks that a disc does not fit into."""
    disc = _disc(radius)
    return _back(cv2.dilate(cv2.erode(_bytes_of(mask), disc), disc))


def _bytes_of(mask: Values) -> NDArray[Any]:
    """A mask of nothing but 0 and 1 as bytes, which OpenCV's discs cross several times as fast."""
    values = np.asarray(mask, np.float32)
    small = values.astype(np.uint8)
    return small if (small == values).all() else values


def _back(values: Any) -> Mask:
    return np.asarray(values, np.float32)


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * max(round(radius), 0) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def resized(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """The picture at (width, height), by Lanczos; averaged where it gets smaller."""
    if (rgb.shape[1], rgb.shape[0]) == size:
        return rgb.copy()
    shrinks = size[0] < rgb.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    return np.ascontiguousarray(cv2.resize(rgb, size, interpolation=how), np.uint8)


def resized_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """The mask at (width, height)."""
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR), np.float32)


def to_lab(rgb: Pixels) -> Floats:
    """CIELAB: lightness 0 to 100, a and b about -127 to 127."""
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB), np.float32)


def from_lab(lab: Values) -> Pixels:
    """The inverse of `to_lab`; what no screen can show is clipped."""
    lab = np.array(lab, np.float32)
    lab[..., 0] = np.clip(lab[..., 0], 0.0, 100.0)
    return to_bytes(np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)) * 255.0)


def to_bytes(values: Values) -> Pixels:
    """Rounded and clipped to 0..255."""
    return np.ascontiguousarray(np.clip(values + 0.5, 0.0, 255.0), np.uint8)


def mixed(below: Pixels, above: Pixels, weight: Values) -> Pixels:
    """`above` over `below` by weight; pixels of weight 0 keep their bytes exactly."""
    share = weight[..., None]
    both = to_bytes(above.astype(np.float32) * share + below.astype(np.float32) * (1.0 - share))
    return np.where(share > 0.0, both, below)


def luma(rgb: Pixels) -> Floats:
    """Grey values 0 to 255."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)
