"""Faces out of a picture, upright and of one size, and back. Pixels are [H, W, 3], blue first."""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.engine.faces.detector import Face
from sdapi.engine.faces.parser import FACE_SIDE

Pixels = NDArray[np.uint8]
#: where eyes, nose and corners of the mouth are in the faces that restorers were trained on (FFHQ)
_TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.19360],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
#: outside of the picture
_GREY = (135, 133, 132)


@dataclass(frozen=True, slots=True)
class Aligned:
    """A face at the template's place, and the map from the picture to it."""

    pixels: Pixels
    to_face: NDArray[np.float64]


def align(picture: Pixels, face: Face) -> Aligned | None:
    """Turn and scale a face upright; None where its points lie so that nothing fits."""
    found, _ = cv2.estimateAffinePartial2D(face.points, _TEMPLATE, method=cv2.LMEDS)
    if found is None:  # pyright: ignore[reportUnnecessaryComparison]
        return None
    matrix = cast("NDArray[np.float64]", found)
    pixels = cv2.warpAffine(
        picture,
        matrix,
        (FACE_SIDE, FACE_SIDE),
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=_GREY,
    )
    return Aligned(cast("Pixels", pixels), matrix)


def put_back(
    picture: NDArray[np.float64], face: Pixels, mask: NDArray[np.float64], aligned: Aligned
) -> NDArray[np.float64]:
    """The picture with a restored face at its place, as far as the mask says."""
    size = picture.shape[1], picture.shape[0]
    back = cv2.invertAffineTransform(aligned.to_face)
    placed = cv2.warpAffine(face, back, size)
    share = cv2.warpAffine(mask, back, size, flags=cv2.INTER_AREA)[:, :, None]
    return share * placed + (1 - share) * picture
