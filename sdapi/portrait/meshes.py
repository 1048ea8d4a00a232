"""Face meshes for whoever draws them: the preprocessor `mediapipe_face` does."""

from typing import Final

from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.engine.control.annotators.face_finder import FaceMesh
from sdapi.errors import AnnotatorMissing, BadRequest
from sdapi.portrait.faces.files import FOLDER, MESH
from sdapi.portrait.faces.processes import FaceProcesses, FaceTaskFailed
from sdapi.portrait.faces.providers import Choices, Providers

#: a detector whose scores are no probabilities: what it finds counts as sure
_SURE: Final = "dlib"
_PROVIDER: Final = "mesh"


class PortraitFaces:
    """Finds faces and their points with the portrait's providers, in its processes."""

    def __init__(self, choices: Choices, processes: FaceProcesses) -> None:
        self._choices, self._processes = choices, processes

    def meshes(self, rgb: Pixels) -> list[FaceMesh]:
        """Every face of a picture; raises `AnnotatorMissing` without the mesh's file."""
        choice = self._choices.by_role.get("landmarks")
        if choice is None or choice.candidate.name != _PROVIDER:
            raise AnnotatorMissing(
                f"the preprocessor 'mediapipe_face' needs {MESH} in models/{FOLDER}, and it is "
                "not there or not chosen"
            )
        try:
            return self._processes.run_blocking(_meshes, rgb)
        except FaceTaskFailed as error:
            raise BadRequest(f"mediapipe_face: faces cannot be looked for: {error}") from error


def _meshes(providers: Providers, rgb: Pixels) -> list[FaceMesh]:
    detector = providers.detector
    is_sure = detector.about.name == _SURE
    found: list[FaceMesh] = []
    for face in detector.detect(rgb):
        mesh = providers.landmarks.locate(rgb, face).mesh
        if mesh is not None:
            found.append(FaceMesh(mesh, 1.0 if is_sure else face.score))
    return found
