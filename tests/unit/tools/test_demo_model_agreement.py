"""The demo model's measure of edges: near ones agree, others do not."""

import numpy as np
import pytest

pytest.importorskip("cv2")

from tools.demo_model.measuring.agreement import edge_agreement


def line(column: int) -> "np.ndarray":
    edges = np.zeros((32, 32), np.uint8)
    edges[:, column] = 255
    return edges


@pytest.mark.parametrize(("apart", "agreement"), [(0, 1.0), (3, 1.0), (4, 0.0)])
def test_edges_agree_up_to_three_pixels(apart: int, agreement: float):
    assert edge_agreement(line(10), line(10 + apart)) == pytest.approx(agreement)


def test_edges_too_many_cost_precision_alone():
    made = np.maximum(line(10), line(25))  # half of it is right, and all that is wanted is there

    assert edge_agreement(made, line(10)) == pytest.approx(2 / 3)


def test_without_edges_nothing_agrees():
    assert edge_agreement(np.zeros((32, 32), np.uint8), line(10)) == 0.0
