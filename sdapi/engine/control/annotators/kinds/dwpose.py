"""DWPose (Yang et al. 2023): YOLOX finds people, a pose network their 133 points. Run by OpenCV."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sdapi.engine.control.annotators.detected_map import DetectedMap, Pixels
from sdapi.engine.control.annotators.kinds.people import Point, Pose, draw_poses, people_of
from sdapi.engine.control.annotators.sliders import Sliders
from sdapi.errors import ModelUnusable

Array = NDArray[np.float32]
#: a blob [1, 3, H, W] in, every output out
Network = Callable[[Array], list[Array]]

_FINDER_SIDE: Final = 640
_STRIDES: Final = (8, 16, 32)
#: what the finder's canvas is filled with
_FILL: Final = 114
_LEAST_CANDIDATE, _OVERLAP, _LEAST_PERSON = 0.1, 0.45, 0.3
#: width and height that a person is cut to, with how much around it
_POSE_SIZE: Final = (288, 384)
_MARGIN: Final = 1.25
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)
#: places on an axis for each pixel (Li et al. 2022, SimCC)
_PLACES: Final = 2
_LEAST_POINT: Final = 0.3

#: where OpenPose's 18 points of a body are among COCO's 17; the neck is between the shoulders
_SHOULDERS: Final = (5, 6)
_COCO_ORDER: Final = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
#: the other parts among the 133 points
_FACE, _LEFT_HAND, _RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)
_EYES: Final = (2, 1)
_POINTS: Final = 133


@dataclass(frozen=True, slots=True)
class WholeBody:
    """The two networks."""

    finder: Network
    pose: Network


def load(files: tuple[Path, ...]) -> WholeBody:
    """The networks of two ONNX files; raises `ModelUnusable`."""
    return WholeBody(_network(files[0]), _network(files[1]))


def _network(path: Path) -> Network:
    try:
        network: Any = cv2.dnn.readNetFromONNX(str(path))
        names = network.getUnconnectedOutLayersNames()
    except cv2.error as error:
        raise ModelUnusable(f"{path.name}: not an ONNX network that OpenCV can read") from error

    def run(blob: Array) -> list[Array]:
        network.setInput(blob)
        return [np.asarray(output, np.float32) for output in network.forward(names)]

    return run


def draw(networks: WholeBody, canvas: Pixels, at: Sliders) -> DetectedMap:
    """Bodies, hands and faces in OpenPose's colours, on black."""
    height, width = canvas.shape[:2]
    boxes = find(networks.finder, canvas)
    poses = [_pose(*_points(networks.pose, canvas, box), height, width) for box in boxes]
    return DetectedMap(draw_poses(poses, height, width), people_of(poses, height, width))


def find(finder: Network, canvas: Pixels) -> Array:
    """Boxes of people (left, top, right, bottom) in pixels [N, 4]; the whole canvas without any."""
    height, width = canvas.shape[:2]
    scale = min(_FINDER_SIDE / height, _FINDER_SIDE / width)
    square = np.full((_FINDER_SIDE, _FINDER_SIDE, 3), _FILL, np.uint8)
    size = int(width * scale), int(height * scale)
    square[: size[1], : size[0]] = cv2.resize(canvas, size, interpolation=cv2.INTER_LINEAR)
    blob = np.ascontiguousarray(square.transpose(2, 0, 1)[None], np.float32)
    guesses = finder(blob)[0].reshape(-1, 85)
    boxes, scores = _decoded(guesses)
    kept = cv2.dnn.NMSBoxes(
        [box.tolist() for box in boxes], scores.tolist(), _LEAST_CANDIDATE, _OVERLAP
    )
    chosen = [i for i in np.asarray(kept, int).reshape(-1) if scores[i] > _LEAST_PERSON]
    if not chosen:
        return np.array([[0, 0, width, height]], np.float32)
    found = boxes[chosen] / np.float32(scale)
    found[:, 2:] += found[:, :2]
    return found


def _decoded(guesses: Array) -> tuple[Array, Array]:
    """Boxes (left, top, width, height) of a person's class, and how sure each is."""
    sides = [_FINDER_SIDE // stride for stride in _STRIDES]
    if len(guesses) != sum(side * side for side in sides):
        raise ModelUnusable(f"yolox_l.onnx: {len(guesses)} guesses; is it another network?")
    cells: list[Array] = []
    for side, stride in zip(sides, _STRIDES, strict=True):
        y, x = np.mgrid[:side, :side]
        places = np.stack([x.ravel(), y.ravel(), np.full(side * side, stride / 1.0)], axis=1)
        cells.append(places.astype(np.float32))
    grid = np.concatenate(cells)
    centres = (guesses[:, :2] + grid[:, :2]) * grid[:, 2:]
    sizes = np.exp(guesses[:, 2:4]) * grid[:, 2:]
    scores = guesses[:, 4] * guesses[:, 5]
    boxes = np.concatenate([centres - sizes / 2, sizes], axis=1)
    return boxes.astype(np.float32), scores.astype(np.float32)


def _points(network: Network, canvas: Pixels, box: Array) -> tuple[Array, Array]:
    """Points [133, 2] of the person in a box, in pixels, and how sure each is [133]."""
    centre = (box[:2] + box[2:]) / 2
    width, height = _POSE_SIZE
    span = (box[2:] - box[:2]) * np.float32(_MARGIN)
    ratio = width / height
    span = np.maximum(span, np.array([span[1] * ratio, span[0] / ratio], np.float32))
    zoom = width / max(float(span[0]), 1e-6)
    corner = centre - span / 2
    transform = np.array([[zoom, 0, -corner[0] * zoom], [0, zoom, -corner[1] * zoom]], np.float64)
    cut = np.asarray(cv2.warpAffine(canvas, transform, (width, height)), np.float32)
    blob = ((cut - _MEAN) / _DEVIATION).transpose(2, 0, 1)[None]
    x, y = network(np.ascontiguousarray(blob, np.float32))[:2]
    x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    if len(x) != _POINTS or len(y) != _POINTS:
        raise ModelUnusable(f"dw-ll_ucoco_384.onnx: {len(x)} points, not {_POINTS}")
    places = np.stack([x.argmax(axis=1), y.argmax(axis=1)], axis=1).astype(np.float32) / _PLACES
    sure = np.minimum(x.max(axis=1), y.max(axis=1))
    return (places / np.float32(zoom) + corner).astype(np.float32), np.asarray(sure, np.float32)


def _pose(points: Array, sure: Array, height: int, width: int) -> Pose:
    """OpenPose's parts of the 133 points."""
    shares = points / np.array([width, height], np.float32)

    def seen(index: int) -> Point:
        x, y = shares[index].tolist()
        return (x, y) if sure[index] >= _LEAST_POINT else None

    def part(where: slice) -> list[Point]:
        return [seen(index) for index in range(_POINTS)[where]]

    left, right = (seen(index) for index in _SHOULDERS)
    neck: Point = None
    if left is not None and right is not None:
        neck = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    body = [neck if index is None else seen(index) for index in _COCO_ORDER]
    face = [*part(_FACE), *(seen(index) for index in _EYES)]
    return Pose(body, part(_LEFT_HAND), part(_RIGHT_HAND), face)
