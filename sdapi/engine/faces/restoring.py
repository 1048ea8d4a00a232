"""Restores the faces of a picture with GFPGAN or CodeFormer."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import cast

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sdapi.engine.faces.alignment import Pixels, align, put_back
from sdapi.engine.faces.detector import Face, FaceDetector
from sdapi.engine.faces.parser import FaceParser
from sdapi.engine.faces.restorer import CODEFORMER, FaceModels, FaceRestoration
from sdapi.engine.models.device_models import Models
from sdapi.errors import ModelUnusable

#: pictures are brought to this shorter side to look for faces in
_SEARCH_SIDE = 640
#: faces with eyes closer than this are left alone, pixels
_SMALLEST_EYES = 5.0

#: An aligned face [1, 3, 512, 512] in [-1, 1], red first -> restored.
_Restore = Callable[[Tensor], Tensor]


def restore_faces(
    models: Models, image: Image.Image, asked: FaceRestoration
) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture with its faces restored, and what could not be done.

    Without the files it stays as it is. Raises `ModelUnusable` for a file that cannot be loaded.
    """
    if asked.models is None:
        return image, (asked.missing,)
    restored = _restored(models, image.convert("RGB"), asked, asked.models)
    if asked.visibility < 1:
        restored = Image.blend(image.convert("RGB"), restored, asked.visibility)
    return restored, ()


def _restored(
    models: Models, image: Image.Image, asked: FaceRestoration, files: FaceModels
) -> Image.Image:
    picture = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
    with ExitStack() as lent:
        detector = lent.enter_context(models.network(files.detector, FaceDetector))
        faces = [f for f in _find(detector, picture) if f.eye_distance >= _SMALLEST_EYES]
        if not faces:
            return image
        parser = lent.enter_context(models.network(files.parser, FaceParser))
        loaded = lent.enter_context(models.image_model(files.restorer, prefers_half=False))
        restore = _restorer(loaded.descriptor.model, asked)
        result = picture.astype(np.float64)
        for face in faces:
            aligned = align(picture, face)
            if aligned is None:
                continue
            made = _to_pixels(restore(_to_tensor(aligned.pixels).to(models.device)))
            mask = parser.mask(_to_tensor(made)[0].to(models.device))
            result = put_back(result, made, mask, aligned)
    return Image.fromarray(np.ascontiguousarray(result.astype(np.uint8)[:, :, ::-1]))


def _find(detector: FaceDetector, picture: Pixels) -> list[Face]:
    """The faces of a picture, looked for at one size."""
    height, width = picture.shape[:2]
    scale = min(height, width) / _SEARCH_SIDE
    size = int(width / scale), int(height / scale)
    seen = cv2.resize(picture, size, interpolation=cv2.INTER_LANCZOS4)
    return [Face(face.points * scale) for face in detector.find(cast("Pixels", seen))]


def _restorer(model: nn.Module, asked: FaceRestoration) -> _Restore:
    """How a restorer is called; raises `ModelUnusable` for a model that is none."""
    kind = type(model).__name__
    if asked.name == CODEFORMER:
        if kind != "CodeFormer":
            raise ModelUnusable(f"{asked.name}: its file holds a {kind}")
        return lambda face: model(face, weight=asked.weight, adain=True)[0]
    if kind != "GFPGANv1Clean":
        raise ModelUnusable(f"{asked.name}: its file holds a {kind}")
    # With the noise in its file instead of fresh one, so that a request can be repeated.
    return lambda face: model(face, return_rgb=False, randomize_noise=False)[0]


def _to_tensor(pixels: Pixels) -> Tensor:
    """[1, 3, H, W] in [-1, 1], red first."""
    array = pixels[:, :, ::-1].astype(np.float32) / 127.5 - 1
    return torch.from_numpy(array).permute(2, 0, 1)[None]


def _to_pixels(face: Tensor) -> Pixels:
    """Values are cut off, not rounded."""
    scaled = (face[0].float().clamp(-1, 1) + 1) / 2 * 255
    return np.ascontiguousarray(scaled.permute(1, 2, 0).cpu().numpy().astype(np.uint8)[:, :, ::-1])
