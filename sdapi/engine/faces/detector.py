"""RetinaFace (Deng et al. 2020) on ResNet-50: where faces are, and five points of each.

Module names are those of the published weights, `detection_Resnet50_Final.pth`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import nms

_LEVELS = ("layer2", "layer3", "layer4")
_BODY_CHANNELS = (512, 1024, 2048)
_WIDTH = 256
#: pixels between the cells of each level, and the sides of the two boxes guessed at every cell
_STRIDES = (8, 16, 32)
_SIDES = ((16, 32), (64, 128), (256, 512))
_POINTS = 5
#: of the training pictures, blue first
_MEAN = (104.0, 117.0, 123.0)
#: how distances and sizes were scaled in training
_DISTANCE, _SIZE = 0.1, 0.2
_CONFIDENCE, _OVERLAP = 0.97, 0.4


@dataclass(frozen=True, slots=True)
class Face:
    """Eyes, nose and corners of the mouth of a face, left before right; pixels [5, 2]."""

    points: NDArray[np.float32]

    @property
    def eye_distance(self) -> float:
        """Pixels between the eyes."""
        return float(np.linalg.norm(self.points[0] - self.points[1]))


@dataclass(frozen=True, slots=True)
class Guesses:
    """What the network says of every box guessed, relative to it."""

    #: [N, 4]
    boxes: Tensor
    #: confidence that it is a face [N]
    scores: Tensor
    #: [N, 5, 2]
    points: Tensor


class FaceDetector(nn.Module):
    """Finds faces; built without weights."""

    def __init__(self) -> None:
        super().__init__()
        layers = {name: name for name in _LEVELS}
        self.body = IntermediateLayerGetter(resnet50(weights=None), layers)
        self.fpn = _Pyramid()
        self.ssh1, self.ssh2, self.ssh3 = _Context(), _Context(), _Context()
        self.ClassHead = _heads(2)
        self.BboxHead = _heads(4)
        self.LandmarkHead = _heads(2 * _POINTS)

    def forward(self, pixels: Tensor) -> Guesses:
        """What is guessed of one picture [1, 3, H, W], blue first, 0 to 255."""
        mean = torch.tensor(_MEAN, device=pixels.device).reshape(1, 3, 1, 1)
        levels = self.fpn(*self.body(pixels - mean).values())
        contexts = (self.ssh1, self.ssh2, self.ssh3)
        features = [context(level) for context, level in zip(contexts, levels, strict=True)]
        classes = _read(self.ClassHead, features, 2)
        return Guesses(
            _read(self.BboxHead, features, 4),
            classes.softmax(dim=-1)[:, 1],
            _read(self.LandmarkHead, features, 2 * _POINTS).reshape(-1, _POINTS, 2),
        )

    def find(self, pixels: NDArray[np.uint8]) -> list[Face]:
        """The faces of a picture [H, W, 3], blue first, surest first."""
        device = next(self.parameters()).device
        tensor = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
        guesses = self(tensor.to(device))
        height, width = pixels.shape[:2]
        places = _places(height, width).to(device)
        keep = guesses.scores > _CONFIDENCE
        places, scores = places[keep], guesses.scores[keep]
        centres, sizes = places[:, :2], places[:, 2:]
        moved = centres + guesses.boxes[keep, :2] * _DISTANCE * sizes
        half = sizes * (guesses.boxes[keep, 2:] * _SIZE).exp() / 2
        chosen = nms(torch.cat([moved - half, moved + half], dim=1), scores, _OVERLAP)
        points = centres[:, None] + guesses.points[keep] * _DISTANCE * sizes[:, None]
        return [Face(each.cpu().numpy()) for each in points[chosen]]


def _places(height: int, width: int) -> Tensor:
    """Centre and size (x, y, w, h) of every box guessed in a picture, pixels [N, 4]."""
    places: list[Tensor] = []
    for stride, sides in zip(_STRIDES, _SIDES, strict=True):
        y = (torch.arange(math.ceil(height / stride)) + 0.5) * stride
        x = (torch.arange(math.ceil(width / stride)) + 0.5) * stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        boxes = [
            torch.stack([columns, rows, torch.full_like(rows, side), torch.full_like(rows, side)])
            for side in sides
        ]
        places.append(torch.stack(boxes).permute(2, 3, 0, 1).reshape(-1, 4))
    return torch.cat(places)


def _read(heads: nn.ModuleList, features: list[Tensor], width: int) -> Tensor:
    """The values of all levels, one row for each box guessed [N, width]."""
    values = [head(feature) for head, feature in zip(heads, features, strict=True)]
    return torch.cat([value.permute(0, 2, 3, 1).reshape(-1, width) for value in values])


class _Head(nn.Module):
    def __init__(self, values: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(_WIDTH, len(_SIDES[0]) * values, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(x)


def _heads(values: int) -> nn.ModuleList:
    return nn.ModuleList(_Head(values) for _ in _LEVELS)


def _convolution(channels: int, out: int, kernel: int = 3, *, activates: bool = True) -> nn.Module:
    layers = [
        nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if activates else nn.Sequential(*layers)


class _Context(nn.Module):
    """What is around each cell, at three widths (Najibi et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter = _WIDTH // 2, _WIDTH // 4
        self.conv3X3 = _convolution(_WIDTH, half, activates=False)
        self.conv5X5_1 = _convolution(_WIDTH, quarter)
        self.conv5X5_2 = _convolution(quarter, quarter, activates=False)
        self.conv7X7_2 = _convolution(quarter, quarter)
        self.conv7x7_3 = _convolution(quarter, quarter, activates=False)

    def forward(self, x: Tensor) -> Tensor:
        near = self.conv5X5_1(x)
        wide = self.conv7x7_3(self.conv7X7_2(near))
        return torch.cat([self.conv3X3(x), self.conv5X5_2(near), wide], dim=1).relu()


class _Pyramid(nn.Module):
    """The levels of the body, each with what the coarser ones know (Lin et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (
            _convolution(channels, _WIDTH, 1) for channels in _BODY_CHANNELS
        )
        self.merge1, self.merge2 = _convolution(_WIDTH, _WIDTH), _convolution(_WIDTH, _WIDTH)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        one, two, three = self.output1(fine), self.output2(middle), self.output3(coarse)
        two = self.merge2(two + functional.interpolate(three, size=two.shape[-2:]))
        one = self.merge1(one + functional.interpolate(two, size=one.shape[-2:]))
        return one, two, three
