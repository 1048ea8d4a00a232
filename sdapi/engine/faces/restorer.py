"""A face restorer as a job names it."""

from dataclasses import dataclass

from sdapi.engine.weights.model_file import ModelFile

GFPGAN, CODEFORMER = "GFPGAN", "CodeFormer"


@dataclass(frozen=True, slots=True)
class FaceModels:
    """The files that restoring takes: the restorer, what finds faces, what tells face from rest."""

    restorer: ModelFile
    detector: ModelFile
    parser: ModelFile


@dataclass(frozen=True, slots=True)
class FaceRestoration:
    """What is to be done to the faces of a picture."""

    name: str
    #: None, with the reason, where a file is missing: pictures stay as they are
    models: FaceModels | None
    missing: str = ""
    #: how much of the restored picture is mixed in
    visibility: float = 1.0
    #: CodeFormer's: 0 changes most, 1 least
    weight: float = 0.5
