"""ParseNet: which pixels of an aligned face belong to it.

Module names are those of the published weights, `parsing_parsenet.pth`.
"""

from itertools import pairwise
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

#: the sides of an aligned face, pixels
FACE_SIDE = 512
_CHANNELS = 64, 256
_HALVINGS, _DEPTH, _CLASSES = 4, 10, 19
#: background, what is worn on the head, hair, hat, neck and cloth are no face
_NO_FACE = (0, 14, 16, 17, 18)
_BLUR_SIDE, _BLUR_SIGMA = 101, 11.0
#: pixels at the border that never count
_BORDER = 10


class FaceParser(nn.Module):
    """Tells face from rest; built without weights."""

    def __init__(self) -> None:
        super().__init__()
        few, many = _CHANNELS
        widths = [min(few * 2**i, many) for i in range(_HALVINGS + 1)]
        down = [_Block(a, b, "down") for a, b in pairwise(widths)]
        up = [_Block(a, b, "up") for a, b in pairwise(reversed(widths))]
        self.encoder = nn.Sequential(_Layer(3, few), *down)
        self.body = nn.Sequential(*(_Block(many, many) for _ in range(_DEPTH)))
        self.decoder = nn.Sequential(*up)
        self.out_img_conv = _Layer(few, 3)  # only there to have a place for its weights
        self.out_mask_conv = _Layer(few, _CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores of the classes [B, 19, H, W] of faces [B, 3, H, W] in [-1, 1]."""
        features = self.encoder(pixels)
        return self.out_mask_conv(self.decoder(features + self.body(features)))

    def mask(self, pixels: Tensor) -> NDArray[np.float64]:
        """How much each pixel of a face [3, H, W] in [-1, 1] is face, 0 to 1, with soft edges."""
        classes = self(pixels[None])[0].argmax(dim=0).cpu().numpy()
        mask = np.where(np.isin(classes, _NO_FACE), 0.0, 255.0)
        for _ in range(2):
            blurred = cv2.GaussianBlur(mask, (_BLUR_SIDE, _BLUR_SIDE), _BLUR_SIGMA)
            mask = cast("NDArray[np.float64]", blurred)
        inside = np.zeros_like(mask)
        inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = 1.0
        return mask * inside / 255.0


class _Norm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class _Layer(nn.Module):
    """A convolution that may halve or double the sides."""

    def __init__(
        self,
        channels: int,
        out: int,
        scale: str = "none",
        *,
        norm: bool = False,
        activates: bool = False,
    ) -> None:
        super().__init__()
        self._doubles, self._activates = scale == "up", activates
        stride = 2 if scale == "down" else 1
        self.conv2d = nn.Conv2d(channels, out, 3, stride, bias=not norm)
        self.norm = _Norm(out) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self._doubles:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
        x = self.norm(self.conv2d(functional.pad(x, (1, 1, 1, 1), mode="reflect")))
        return functional.leaky_relu(x, 0.2) if self._activates else x


class _Block(nn.Module):
    """A residual block whose way round has a convolution only where the shape changes."""

    def __init__(self, channels: int, out: int, scale: str = "none") -> None:
        super().__init__()
        changes = scale != "none" or channels != out
        self.shortcut_func = _Layer(channels, out, scale) if changes else nn.Identity()
        first, second = ("up", "none") if scale == "up" else ("none", scale)
        self.conv1 = _Layer(channels, out, first, norm=True, activates=True)
        self.conv2 = _Layer(out, out, second, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_func(x) + self.conv2(self.conv1(x))
