"""The preprocessor `mediapipe_face`, drawn from what the portrait part sees."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sdapi.engine.control.annotators.annotators import Annotators
from sdapi.engine.control.annotators.face_finder import FaceMesh
from sdapi.engine.control.annotators.kinds.face_mesh import draw_faces
from sdapi.errors import AnnotatorMissing, BadRequest
from sdapi.extensions.controlnet.preprocessors import find
from sdapi.portrait.faces.processes import FaceProcesses
from sdapi.portrait.faces.providers import Choices
from sdapi.portrait.meshes import PortraitFaces
from tests.portraits.people import pixels

MODELS = Path(__file__).parents[3] / "models"
HAS_MESH = (MODELS / "face" / "face_landmark.tflite").is_file()


@pytest.fixture(scope="module")
def faces() -> Iterator[PortraitFaces]:
    choices = Choices.make(MODELS, {})
    processes = FaceProcesses(choices, 1)
    yield PortraitFaces(choices, processes)
    processes.close()


def mesh(confidence: float = 1.0, side: int = 100, left: int = 0) -> FaceMesh:
    grid = np.stack(np.meshgrid(np.arange(18), np.arange(26)), axis=-1).reshape(-1, 2)
    points = grid / grid.max(axis=0) * side + [left, 0]
    return FaceMesh(points.astype(np.float32), confidence)


@pytest.mark.skipif(not HAS_MESH, reason="the face mesh has not been fetched (launch.py does)")
def test_faces_are_drawn_where_they_are(faces: PortraitFaces) -> None:
    annotators = Annotators(MODELS, faces)

    one = find("mediapipe_face").run(pixels("person_0"), resolution=320, annotators=annotators)
    both = find("mediapipe_face").run(
        pixels("two"), resolution=320, threshold_a=2, annotators=annotators
    )

    assert one.pixels.shape == (320, 320, 3)
    assert both.pixels[:, :320].any()
    assert both.pixels[:, 320:].any()
    colours = {tuple(colour) for colour in one.pixels.reshape(-1, 3).tolist()}
    assert {(0, 0, 0), (10, 200, 10), (10, 180, 10), (250, 200, 10), (10, 200, 250)} <= colours


@pytest.mark.skipif(not HAS_MESH, reason="the face mesh has not been fetched (launch.py does)")
def test_picture_without_faces_is_black(faces: PortraitFaces) -> None:
    made = find("mediapipe_face").run(pixels("nobody"), annotators=Annotators(MODELS, faces))

    assert not made.pixels.any()


def test_only_the_surest_faces_are_drawn() -> None:
    meshes = [mesh(0.6), mesh(0.9, left=120), mesh(0.2, left=240)]

    one = draw_faces(meshes, 120, 400, most=1, least_confidence=0.5)
    two = draw_faces(meshes, 120, 400, most=5, least_confidence=0.5)

    assert not one[:, :115].any()
    assert one[:, 120:230].any()
    assert two[:, :110].any()
    assert not two[:, 235:].any()


def test_small_faces_are_left_out() -> None:
    assert not draw_faces([mesh(side=60)], 120, 120, most=1, least_confidence=0.1).any()


def test_faces_at_the_border_are_drawn_as_far_as_they_are_in_the_picture() -> None:
    assert draw_faces([mesh(left=-60)], 90, 60, most=1, least_confidence=0.1).any()


def test_missing_mesh_file_is_named(tmp_path: Path) -> None:
    choices = Choices.make(tmp_path, {})
    annotators = Annotators(tmp_path, PortraitFaces(choices, FaceProcesses(choices, 1)))

    with pytest.raises(AnnotatorMissing, match=r"face_landmark\.tflite"):
        find("mediapipe_face").run(pixels("person_0"), annotators=annotators)


def test_server_without_the_portrait_part_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="portrait part"):
        find("mediapipe_face").run(pixels("person_0"), annotators=Annotators(tmp_path))
