"""Plug-in: InsightFace's `inswapper_128`, which puts a person's face into a picture.

It is guided by an ArcFace embedding through a matrix that lies in its own file. The face is swapped
in a square of 128 pixels and laid back with a soft edge. Licence on request only; the operator
brings the file. Checked against networks made by hand, not yet against the published one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.portrait.faces.align import ARCFACE_POINTS, five_of
from sdapi.portrait.faces.face import About, Embedder, Face, FaceError, Pixels
from sdapi.portrait.faces.files import SWAPPER_EMBEDDER
from sdapi.portrait.faces.plug_ins.insightface import ArcFaceEmbedder
from sdapi.portrait.faces.plug_ins.onnx_tensors import last_initializer

_SIDE: Final = 128
#: where ArcFace's points lie in that square
_SHIFT: Final = np.array([8.0, 0.0], np.float32)
_LICENCE: Final = "on request only (InsightFace)"
#: target [1, 3, 128, 128] and source [1, 512] -> the swapped square
SwapNetwork = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


class InSwapper:
    """The network, the matrix in its file, and the embedder that knows people."""

    def __init__(
        self, network: SwapNetwork, matrix: NDArray[np.float32], embedder: Embedder, name: str
    ) -> None:
        self._network = network
        self._matrix = matrix
        self._embedder = embedder
        self._name = name

    @classmethod
    def load(cls, path: Path) -> "InSwapper":
        """Raises FaceError for a file of another kind."""
        embedder, matrix = embedder_beside(path), last_initializer(path)
        if embedder is None or matrix is None or matrix.shape != (512, 512):
            raise FaceError(f"{path.name} is no inswapper, or has no {SWAPPER_EMBEDDER} beside it")
        return cls(_network(path), matrix, ArcFaceEmbedder.load(embedder), path.stem)

    @property
    def about(self) -> About:
        return About("inswapper", self._name, _LICENCE)

    def swap(self, target: Pixels, target_face: Face, source: Pixels, source_face: Face) -> Pixels:
        if target_face.points68 is None:
            raise FaceError("the face has no landmarks")
        vector = self._embedder.embed(source, source_face)
        latent = (vector / max(float(np.linalg.norm(vector)), 1e-6)) @ self._matrix
        latent = (latent / max(float(np.linalg.norm(latent)), 1e-6)).astype(np.float32)
        found: Any = cv2.estimateAffinePartial2D(
            five_of(target_face.points68), ARCFACE_POINTS + _SHIFT, method=cv2.LMEDS
        )[0]
        if found is None:
            raise FaceError("the face cannot be aligned")
        square = cv2.warpAffine(target, found, (_SIDE, _SIDE), flags=cv2.INTER_AREA)
        blob = np.asarray(cv2.dnn.blobFromImage(square, 1 / 255.0), np.float32)
        swapped = self._network(blob, latent[None])[0].transpose(1, 2, 0)
        return _laid_back(target, np.clip(swapped * 255.0, 0, 255).astype(np.float32), found)


def embedder_beside(path: Path) -> Path | None:
    """The file that describes people to it: what another embedder says is a stranger to it."""
    return next(iter(sorted(path.parent.glob(SWAPPER_EMBEDDER))), None)


def _laid_back(target: Pixels, square: NDArray[np.float32], to_square: Any) -> Pixels:
    """The square in its place, its edge soft."""
    height, width = target.shape[:2]
    back = cv2.invertAffineTransform(to_square)
    inside = np.zeros((_SIDE, _SIDE), np.float32)
    inside[8:-8, 8:-8] = 1.0
    inside = cv2.GaussianBlur(inside, (17, 17), 4.0)
    weight = np.asarray(cv2.warpAffine(inside, back, (width, height)), np.float32)[..., None]
    whole = np.asarray(cv2.warpAffine(square, back, (width, height)), np.float32)
    mixed = whole * weight + target * (1.0 - weight)
    return np.ascontiguousarray(np.clip(mixed + 0.5, 0, 255), np.uint8)


def _network(path: Path) -> SwapNetwork:
    network: Any = cv2.dnn.readNetFromONNX(str(path))

    def run(target: NDArray[np.float32], source: NDArray[np.float32]) -> NDArray[np.float32]:
        network.setInput(target, "target")
        network.setInput(source, "source")
        return np.asarray(network.forward(), np.float32)

    return run
