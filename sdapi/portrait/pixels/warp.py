"""A person's face in the geometry, pose and light of another picture, without a network.

Contract: portrait-pipeline 8.2. Landmarks of both faces, triangles over the template's, an
affine map for each triangle; then the template's light is laid on it: its low frequencies in
lightness, its mean colour. Natural up to 20 degrees between the
poses; beyond 30 the far cheek smears.
"""

from typing import Any, Final

import cv2
import numpy as np
from scipy.spatial import Delaunay, QhullError

from sdapi.portrait.faces.face import About, Face, FaceError, Mask, Pixels, Points
from sdapi.portrait.pixels.frame import moved
from sdapi.portrait.pixels.masks.shape import Shape
from sdapi.portrait.pixels.raster import (
    Floats,
    blurred_within,
    from_lab,
    grown,
    mixed,
    resized,
    shrunk,
    to_lab,
)

_LIGHT_SHARE: Final = 0.75
_LIGHT_SIGMA: Final = 0.10
_SPREAD: Final = (0.6, 1.3)


class WarpSwapper:
    """The built-in swapper."""

    @property
    def about(self) -> About:
        return About("warp", "1", "Apache-2.0")

    def swap(self, target: Pixels, target_face: Face, source: Pixels, source_face: Face) -> Pixels:
        """The target with the source's features, light as before; raises FaceError."""
        shape = Shape.of(target_face, target.shape)
        source, source_face = _of_like_size(source, source_face, shape.fw)
        ours, theirs = _correspondence(shape, Shape.of(source_face, source.shape))
        warped, domain = _warped(source, theirs, ours, shape.size)
        core = shrunk(shape.core(), 0.07 * shape.fw) * domain
        if not core.any():
            raise FaceError("the face is too small to be fused")
        features = np.maximum(shape.eyes(0.05 * shape.fw), shape.lips(0.03 * shape.fw))
        lit = _lit(warped, target, core, features, shape.fw)
        return mixed(target, lit, grown(core, 0.07 * shape.fw) * domain)


def _of_like_size(source: Pixels, face: Face, fw: float) -> tuple[Pixels, Face]:
    """A source much larger than its place is made smaller first, or it would flicker."""
    scale = fw / Shape.of(face, source.shape).fw
    if scale >= 1.0:
        return source, face
    height, width = source.shape[:2]
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return resized(source, size), moved(
        face, np.array([[size[0] / width, 0.0, 0.0], [0.0, size[1] / height, 0.0]])
    )


def _correspondence(ours: Shape, theirs: Shape) -> tuple[Points, Points]:
    """Points that mean the same in both: the mesh where both have one, else 68 and a forehead."""
    if ours.mesh is not None and theirs.mesh is not None:
        return ours.mesh, theirs.mesh
    return (
        np.concatenate([ours.points, ours.forehead]),
        np.concatenate([theirs.points, theirs.forehead]),
    )


def _warped(
    source: Pixels, theirs: Points, ours: Points, size: tuple[int, int]
) -> tuple[Pixels, Mask]:
    """The source moved so that its points lie on ours, and where that is defined."""
    try:
        triangles = Delaunay(ours).simplices
    except (QhullError, ValueError) as error:
        raise FaceError("the landmarks span no face") from error
    labels = np.full(size, -1, np.int32)
    affine = np.zeros((len(triangles) + 1, 2, 3), np.float32)
    for i, corners in enumerate(triangles):
        affine[i] = cv2.getAffineTransform(ours[corners], theirs[corners])
        cv2.fillConvexPoly(labels, np.rint(ours[corners]).astype(np.int32), i)
    rows, columns = np.nonzero(labels >= 0)
    of_pixel = affine[labels[rows, columns]]
    x, y = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for axis, place in ((0, x), (1, y)):
        across, down, shift = of_pixel[:, axis].T
        place[rows, columns] = across * columns + down * rows + shift
    moved: Any = cv2.remap(source, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8), (labels >= 0).astype(np.float32)


def _lit(warped: Pixels, target: Pixels, core: Mask, features: Mask, fw: float) -> Pixels:
    """The warped face in the target's light and tone.

    Eyes and lips take no part in the statistics of colour, and their colour is kept: the whites of
    eyes would get the skin's tint.
    """
    ours, theirs = to_lab(target), to_lab(warped)
    sigma = _LIGHT_SIGMA * fw
    low = [blurred_within(lab[..., 0], core, sigma) for lab in (ours, theirs)]
    theirs[..., 0] += _LIGHT_SHARE * (low[0] - low[1])
    inside = core > 0.5
    theirs[..., 0] += ours[..., 0][inside].mean() - theirs[..., 0][inside].mean()
    plain = inside & (features < 0.5)
    if plain.any():
        for channel in (1, 2):
            shifted = _like(theirs[..., channel], ours[..., channel], plain)
            theirs[..., channel] += (shifted - theirs[..., channel]) * (1.0 - features)
    return from_lab(theirs)


def _like(values: Floats, model: Floats, where: np.ndarray) -> Floats:
    """Values with the mean, and nearly the spread, that the model has in some place."""
    mean, spread = values[where].mean(), values[where].std()
    ratio = np.clip(model[where].std() / max(float(spread), 1e-3), *_SPREAD)
    return (values - mean) * ratio + model[where].mean()
