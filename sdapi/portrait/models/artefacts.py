"""What a trained model's folder holds: written by training, read by creation.

    meta.json            what the model is: `ModelMeta`
    lora.safetensors     the LoRA, kohya's format, float16
    ref_image.jpg        the person's best photo, whole and upright: the source of face fusion
    ref_image.json       the face in it that is the person's, a `Reference`; older models have none
    face_id.jpg          the best picture that training drew; absent for SDXL and for scenes
    refs/0..4.jpg,.json  further photos for other poses, see `Reference`
    original_backup/     photos as they were sent, 0.jpg onwards, upright
    processed_images/    crops that were trained on, captions, metadata.jsonl

Files are written into a draft of the folder, which `ModelFolders.publish` puts in its place whole.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from sdapi.portrait.faces.face import Points
from sdapi.portrait.state.records import Base

META: Final = "meta.json"
LORA: Final = "lora.safetensors"
REFERENCE: Final = "ref_image.jpg"
_REFERENCE_FACE: Final = "ref_image.json"
FACE_ID: Final = "face_id.jpg"
REFERENCES: Final = "refs"
BACKUP: Final = "original_backup"
PROCESSED: Final = "processed_images"
MAX_REFERENCES: Final = 5


class ArtefactError(Exception):
    """A file of a model is missing or broken; the text names it."""


@dataclass(frozen=True, slots=True)
class ModelMeta:
    """What a model is and how it was made."""

    kind: Base
    role: Literal["person", "scene"]
    #: what a prompt must say for the LoRA to act
    trigger: str
    #: the name that `<lora:…>` has for it
    lora_name: str
    sex: str = "secret"
    #: updates that were made
    steps: int = 0
    #: of a scene, one for each photo
    captions: tuple[str, ...] = ()
    #: step -> mean likeness of its validation pictures, 0 to 1
    scores: Mapping[int, float] = field(default_factory=dict[int, float])
    #: steps whose weights were averaged, once for each picture among the best
    merged_steps: tuple[int, ...] = ()
    #: role -> name and version of the face provider that was used
    providers: Mapping[str, str] = field(default_factory=dict[str, str])
    #: file name of the checkpoint it was trained on
    checkpoint: str = ""
    created_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As `meta.json` and the records of models have it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelMeta":
        """The inverse of `to_json`; raises ArtefactError."""
        try:
            known: dict[str, Any] = {
                **values,
                "captions": tuple(values["captions"]),
                "merged_steps": tuple(values["merged_steps"]),
                "scores": {int(step): float(score) for step, score in values["scores"].items()},
            }
            return cls(**known)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{META} is not as expected: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """How the person's face in a photo looks: tells it from others', and whether it suits."""

    #: [68, 2] in the photo's pixels
    points68: Points
    #: degrees, and the nose's place between eyes and chin; see `faces.pose`
    yaw: float
    pitch: float
    #: height of the inner lips by the width of the mouth
    mouth_opening: float
    #: Laplacian variance of the face at a fixed size; below 8 is blurred
    sharpness: float

    def to_json(self) -> dict[str, Any]:
        """As the file beside the photo has it."""
        return {
            "points68": [[round(float(x), 2), round(float(y), 2)] for x, y in self.points68],
            "yaw": self.yaw,
            "pitch": self.pitch,
            "mouth_opening": self.mouth_opening,
            "sharpness": self.sharpness,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Reference":
        """The inverse of `to_json`; raises ArtefactError."""
        try:
            points = np.array(values["points68"], np.float32).reshape(68, 2)
            rest = {name: float(values[name]) for name in _NUMBERS}
            return cls(points, **rest)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"a reference is not as expected: {error}") from error


_NUMBERS: Final = ("yaw", "pitch", "mouth_opening", "sharpness")


@dataclass(frozen=True, slots=True)
class Artefacts:
    """The files of one model, published or a draft."""

    folder: Path

    @property
    def lora(self) -> Path:
        """The file of the LoRA."""
        return self.folder / LORA

    @property
    def reference(self) -> Path:
        """The file of the reference picture."""
        return self.folder / REFERENCE

    @property
    def face_id(self) -> Path:
        """Its picture; normal to be absent for SDXL, where the reference takes its part."""
        return self.folder / FACE_ID

    def meta(self) -> ModelMeta:
        """Raises ArtefactError."""
        return ModelMeta.from_json(_read_object(self.folder / META))

    def reference_face(self) -> Reference | None:
        """The person's face in the reference picture; None where that was not kept."""
        try:
            return Reference.from_json(_read_object(self.folder / _REFERENCE_FACE))
        except ArtefactError:
            return None

    def hold(self, meta: ModelMeta) -> bool:
        """Whether they are the model that this describes, and no other one of its name."""
        try:
            # As texts: a score that is no number equals itself there.
            return json.dumps(self.meta().to_json()) == json.dumps(meta.to_json())
        except ArtefactError:
            return False

    def references(self) -> list[tuple[Path, Reference]]:
        """The further photos, best first; those that cannot be read are left out."""
        found: list[tuple[Path, Reference]] = []
        for number in range(MAX_REFERENCES):
            path = self.folder / REFERENCES / f"{number}.jpg"
            try:
                reference = Reference.from_json(_read_object(path.with_suffix(".json")))
            except ArtefactError:
                continue
            if path.is_file():
                found.append((path, reference))
        return found

    def write_meta(self, meta: ModelMeta) -> None:
        text = json.dumps(meta.to_json(), indent=2, ensure_ascii=False)
        (self.folder / META).write_text(text + "\n", encoding="utf-8")

    def write_reference_face(self, reference: Reference) -> None:
        """Keep which face of the reference picture is the person's."""
        path = self.folder / _REFERENCE_FACE
        path.write_text(json.dumps(reference.to_json()), encoding="utf-8")

    def write_reference(self, number: int, jpeg: bytes, reference: Reference) -> None:
        """Keep a further photo; numbers count from 0, best first."""
        path = self.folder / REFERENCES / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg)
        path.with_suffix(".json").write_text(json.dumps(reference.to_json()), encoding="utf-8")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path.name} cannot be read: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{path.name} holds no object")
    return content
