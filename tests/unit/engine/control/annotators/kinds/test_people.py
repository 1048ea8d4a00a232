"""Poses: decoded from DWPose's outputs, told as JSON, drawn from it."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sdapi.engine.control.annotators.kinds.dwpose import WholeBody, draw, find
from sdapi.engine.control.annotators.kinds.people import BODY_POINTS, Pose, draw_poses, people_of
from sdapi.engine.control.annotators.kinds.people import render_people as render
from sdapi.engine.control.annotators.sliders import Sliders
from sdapi.errors import BadRequest, ModelUnusable

CELLS = 80 * 80 + 40 * 40 + 20 * 20
Array = NDArray[np.float32]


def person(**parts: Any) -> dict[str, Any]:
    """A body whose nose and neck are seen, at (20, 30) and (40, 30)."""
    body = [20, 30, 1, 40, 30, 0.9] + [0.0] * (BODY_POINTS - 2) * 3
    return {
        "people": [{"pose_keypoints_2d": body} | parts],
        "canvas_width": 100,
        "canvas_height": 60,
    }


def finder_seeing(cell: tuple[int, int], size: tuple[float, float]) -> Any:
    """A finder that is sure of one person, centred on a cell of the finest level."""
    guesses = np.zeros((1, CELLS, 85), np.float32)
    guesses[0, cell[1] * 80 + cell[0], :6] = [0, 0, *np.log(np.array(size) / 8), 1.0, 0.9]
    return lambda blob: [guesses]


def pose_network(points: dict[int, tuple[int, int]]) -> Any:
    """A pose network that sees some points, at pixels of its 288 x 384 cut."""
    x, y = np.zeros((1, 133, 576), np.float32), np.zeros((1, 133, 768), np.float32)
    for index, (column, row) in points.items():
        x[0, index, column * 2] = y[0, index, row * 2] = 0.8
    return lambda blob: [x, y]


def test_finder_boxes_come_back_in_pixels_of_the_canvas() -> None:
    canvas = np.zeros((320, 640, 3), np.uint8)

    boxes = find(finder_seeing((10, 20), (80, 160)), canvas)

    assert np.allclose(boxes, [[10 * 8 - 40, 20 * 8 - 80, 10 * 8 + 40, 20 * 8 + 80]], atol=1e-3)


def test_canvas_counts_as_one_person_where_nobody_is_found() -> None:
    canvas = np.zeros((64, 128, 3), np.uint8)

    boxes = find(lambda blob: [np.zeros((1, CELLS, 85), np.float32)], canvas)

    assert boxes.tolist() == [[0, 0, 128, 64]]


def test_points_come_back_where_the_network_saw_them() -> None:
    canvas = np.zeros((384, 288, 3), np.uint8)
    networks = WholeBody(
        finder_seeing((15, 32), (240, 320)),
        pose_network({0: (144, 192), 5: (100, 192), 6: (188, 192), 91: (144, 100)}),
    )

    made = draw(networks, canvas, Sliders(0.5, 0.5))

    assert made.poses is not None
    (found,) = made.poses["people"]
    body = np.array(found["pose_keypoints_2d"]).reshape(-1, 3)
    scale = 640 / 384  # the finder looked at a larger picture
    centre = np.array([15 * 8, 32 * 8]) / scale
    assert np.allclose(body[0], [*centre, 1], atol=0.5)
    assert np.allclose(body[1], [*centre, 1], atol=0.5)  # the neck: between the shoulders
    assert body[5][0] < centre[0] < body[2][0]
    assert found["hand_left_keypoints_2d"][2] == 1.0
    assert found["hand_right_keypoints_2d"] == [0.0] * 63
    assert made.pixels.any()


def test_outputs_of_another_network_are_refused() -> None:
    canvas = np.zeros((64, 64, 3), np.uint8)

    with pytest.raises(ModelUnusable, match=r"yolox_l\.onnx"):
        find(lambda blob: [np.zeros((1, 10, 85), np.float32)], canvas)


def test_json_of_poses_draws_the_same_picture() -> None:
    body = [(0.1 + 0.04 * i, 0.2 + 0.03 * i) for i in range(BODY_POINTS)]
    hand = [(0.02 * i, 0.5) for i in range(21)]
    poses = [Pose(body, hand, None, [(0.5, 0.5)] * 70)]

    drawn = render(people_of(poses, 400, 300))

    assert np.array_equal(drawn, draw_poses(poses, 400, 300))
    assert drawn.shape == (400, 300, 3)


def test_limbs_have_their_colours() -> None:
    drawn = render(person())

    assert tuple(drawn[30, 20]) == (255, 0, 0)  # the nose is red
    assert tuple(drawn[30, 40]) == (255, 85, 0)  # the neck is orange
    assert drawn[30, 30].any()  # and between them is a limb
    assert not drawn[5, 5].any()


def test_shares_and_pixels_draw_the_same() -> None:
    shares = person()
    numbers = np.array(shares["people"][0]["pose_keypoints_2d"]).reshape(-1, 3) / [100, 60, 1]
    shares["people"][0]["pose_keypoints_2d"] = numbers.ravel().tolist()

    assert np.array_equal(render(shares), render(person()))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"canvas_width": 0}, "canvas_width"),
        ({"canvas_height": "60"}, "canvas_height"),
        ({"canvas_height": 10**9}, "canvas_height"),
        ({"people": None}, "people is a list"),
        ({"people": [7]}, r"people\[0\] is an object"),
        ({"people": [{}]}, r"people\[0\]\.pose_keypoints_2d is missing"),
        ({"people": [{"pose_keypoints_2d": [1, 2, 3]}]}, "54 numbers"),
        ({"people": [{"pose_keypoints_2d": ["a"] * 54}]}, "54 numbers"),
        ({"people": [{"pose_keypoints_2d": [float("nan")] * 54}]}, "54 numbers"),
        ({"people": [{"pose_keypoints_2d": [1e30] * 54}]}, "54 numbers"),
    ],
)
def test_poses_that_cannot_be_drawn_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        render(person() | changes)


def test_parts_of_another_length_are_refused() -> None:
    with pytest.raises(BadRequest, match="hand_left_keypoints_2d is a list of 63 numbers"):
        render(person(hand_left_keypoints_2d=[1, 2, 1]))
