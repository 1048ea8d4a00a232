"""How well two sets of edges lie on each other."""

import cv2
import numpy as np

from tools.demo_model.pictures.dataset import Picture


def edge_agreement(made: Picture, wanted: Picture, tolerance: int = 3) -> float:
    """F1 of two edge pictures [H, W]: a pixel is right with one of the other's at most so far off.

    0 where one of them has no edges.
    """
    if not made.any() or not wanted.any():
        return 0.0
    precision = float(_near(wanted, tolerance)[made > 0].mean())
    recall = float(_near(made, tolerance)[wanted > 0].mean())
    return 2.0 * precision * recall / max(precision + recall, 1e-9)


def _near(edges: Picture, tolerance: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    apart = cv2.distanceTransform((edges == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(apart) <= tolerance
