"""OpenPose (Cao et al. 2019): bodies, hands and faces, by `controlnet_aux`.

Its weights are for non-commercial use; the operator brings them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from sdapi.engine.control.annotators.auxiliary import controlnet_aux, quietly
from sdapi.engine.control.annotators.detected_map import DetectedMap, Pixels
from sdapi.engine.control.annotators.kinds.people import Point, Pose, draw_poses, people_of
from sdapi.engine.control.annotators.sliders import Sliders
from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.state_dict import read_state_dict
from sdapi.errors import ModelUnusable

BODY_FILE: Final = "body_pose_model.pth"
HANDS_FILE: Final = "hand_pose_model.pth"
FACE_FILE: Final = "facenet.pth"


def load(files: tuple[Path, ...]) -> Any:
    """The networks of the files, told apart by their names."""
    aux = controlnet_aux()
    package = aux.open_pose
    kinds = {
        BODY_FILE: (package.body.Body, package.body.bodypose_model),
        HANDS_FILE: (package.hand.Hand, package.hand.handpose_model),
        FACE_FILE: (package.face.Face, package.face.FaceNet),
    }
    made = {file.name: _estimator(*kinds[file.name], file) for file in files}
    return aux.OpenposeDetector(made[BODY_FILE], made.get(HANDS_FILE), made.get(FACE_FILE))


def draw(
    detector: Any, canvas: Pixels, at: Sliders, *, body: bool, hands: bool, face: bool
) -> DetectedMap:
    """Limbs in their colours, on black."""
    found: Sequence[Any] = quietly(
        detector.detect_poses, canvas, include_hand=hands, include_face=face
    )
    poses = [
        Pose(
            [_point(each) for each in person.body.keypoints],
            _points(person.left_hand),
            _points(person.right_hand),
            _points(person.face),
        )
        for person in found
    ]
    height, width = canvas.shape[:2]
    pixels = draw_poses(poses, height, width, body=body)
    return DetectedMap(pixels, people_of(poses, height, width))


def _points(points: Sequence[Any] | None) -> list[Point] | None:
    return None if points is None else [_point(each) for each in points]


def _point(point: Any) -> Point:
    """Hands and faces have negative places for what was not seen."""
    return None if point is None or point.x < 0 else (float(point.x), float(point.y))


def _estimator(kind: Any, build: Callable[[], nn.Module], file: Path) -> Any:
    """An estimator with a file's weights, without the constructor that reads any pickle."""
    estimator = kind.__new__(kind)
    estimator.model = _network(build(), file)
    return estimator


def _network(network: nn.Module, file: Path) -> nn.Module:
    """Bodies and hands are published without the name of the part that each layer is in."""
    weights = read_state_dict(file)
    names = {name: name for name in network.state_dict()}
    if not names.keys() & weights.keys():
        names = {name: name.split(".", 1)[1] for name in names}
    if absent := sorted(set(names.values()) - weights.keys()):
        raise ModelUnusable(f"{file.name} lacks {len(absent)} weights, such as {absent[0]!r}")
    tensors = {name: weights[published] for name, published in names.items()}
    assign(network, tensors, file.name, torch.float32)
    return network
