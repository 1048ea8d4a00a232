"""Models from picture to picture, as spandrel tells them from their weights."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdapi.engine.upscaling.upscaler import Tiles
from sdapi.engine.weights.model_file import ModelFile
from sdapi.engine.weights.state_dict import read_state_dict
from sdapi.engine.weights.tensor_bytes import module_bytes
from sdapi.errors import BadRequest, ModelUnusable
from sdapi.images.tiles import TileGrid, by_tiles

if TYPE_CHECKING:
    import spandrel

#: pixels that one run of a model may make
_LARGEST_OUTPUT = 256_000_000


@dataclass(slots=True)
class ImageModel:
    """A loaded model: an upscaler, a restorer, or one for faces."""

    name: str
    descriptor: spandrel.ImageModelDescriptor[torch.nn.Module]

    @property
    def size_bytes(self) -> int:
        return module_bytes(self.descriptor.model)

    def move(self, device: torch.device) -> None:
        self.descriptor.to(device)

    def run(self, picture: Image.Image) -> Image.Image:
        """What the model makes of a whole picture, RGB."""
        return _to_image(self.descriptor(self._to_tensor(picture)))

    def upscale(self, picture: Image.Image, tiles: Tiles, stop: threading.Event) -> Image.Image:
        """One run over a picture, in tiles; the picture as it is once `stop` is set.

        Raises `BadRequest` where the result would be too large to hold.
        """
        scale = self.descriptor.scale
        pixels = picture.width * picture.height * scale**2
        if pixels > _LARGEST_OUTPUT:
            raise BadRequest(
                f"{self.name} would make {pixels // 1_000_000} megapixels of a picture of "
                f"{picture.width}x{picture.height}; at most {_LARGEST_OUTPUT // 1_000_000}"
            )
        picture = picture.convert("RGB")
        if tiles.averages:
            return self._averaged(picture, tiles, stop)
        if tiles.size <= 0:
            return self.run(picture)
        grid = TileGrid.of(picture.size, (tiles.size, tiles.size), tiles.overlap)
        try:
            return by_tiles(picture, grid, lambda tile: self._unless(stop, tile))
        except _Stopped:
            return picture

    def _unless(self, stop: threading.Event, tile: Image.Image) -> Image.Image:
        if stop.is_set():
            raise _Stopped
        return self.run(tile)

    def _averaged(self, picture: Image.Image, tiles: Tiles, stop: threading.Event) -> Image.Image:
        """Square tiles at fixed steps; where they overlap, the mean of them."""
        pixels, scale = self._to_tensor(picture), self.descriptor.scale
        height, width = pixels.shape[-2:]
        side = min(tiles.size, height, width)
        if side <= 0:
            return self.run(picture)
        total = torch.zeros(1, 3, height * scale, width * scale)
        counts = torch.zeros(1, 1, height * scale, width * scale)
        for top in _steps(height, side, tiles.overlap):
            for left in _steps(width, side, tiles.overlap):
                if stop.is_set():
                    return picture
                made = self.descriptor(pixels[..., top : top + side, left : left + side])
                rows = slice(top * scale, (top + side) * scale)
                columns = slice(left * scale, (left + side) * scale)
                total[..., rows, columns] += made.float().cpu()
                counts[..., rows, columns] += 1
        return _to_image(total / counts)

    def _to_tensor(self, picture: Image.Image) -> Tensor:
        """[1, 3, H, W] in [0, 1], blue first: the webui has always fed these models so."""
        pixels = np.asarray(picture.convert("RGB"))[:, :, ::-1].astype(np.float32) / 255.0
        tensor = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
        return tensor.to(self.descriptor.device, self.descriptor.dtype)


class _Stopped(Exception):
    """Between two tiles somebody said stop."""


def load_image_model(file: ModelFile, *, prefers_half: bool) -> ImageModel:
    """Load a model file to the CPU; raises `ModelUnusable` naming the file and the reason."""
    # Its forty architectures take seconds to import, and most jobs need none.
    import spandrel

    _add_extra_architectures()
    weights = spandrel.canonicalize_state_dict(read_state_dict(file.path))
    name = file.path.name
    try:
        descriptor = spandrel.MAIN_REGISTRY.load(weights)
    except spandrel.UnsupportedModelError:
        raise ModelUnusable(f"{name}: no upscaler or restorer of a known architecture") from None
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelUnusable(f"{name}: its weights do not fit together ({reason})") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or descriptor.input_channels != 3:
        raise ModelUnusable(f"{name}: a model that does not turn a picture into another")
    descriptor.eval()
    descriptor.model.requires_grad_(False)
    if prefers_half and descriptor.supports_half:
        descriptor.half()
    return ImageModel(name, descriptor)


def _add_extra_architectures() -> None:
    """Let spandrel know those with licences of their own, where an operator has installed them."""
    if find_spec("spandrel_extra_arches") is None:
        return
    install = import_module("spandrel_extra_arches").install
    install(ignore_duplicates=True)


def _steps(side: int, tile: int, overlap: int) -> list[int]:
    return [*range(0, side - tile, max(tile - overlap, 1)), side - tile]


def _to_image(pixels: Tensor) -> Image.Image:
    """[1, 3, H, W] in [0, 1], blue first -> picture; rounded, unlike what a VAE decodes."""
    array = pixels[0].float().clamp(0, 1).mul(255).round().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(array.astype(np.uint8)[:, :, ::-1]))
