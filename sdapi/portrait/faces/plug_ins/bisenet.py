"""Plug-in: face parsing by a BiSeNet with the nineteen classes of CelebAMask-HQ."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np

from sdapi.portrait.faces.align import eye_angle, level_square
from sdapi.portrait.faces.face import About, Face, FaceError, Mask, Pixels
from sdapi.portrait.faces.plug_ins.insightface import Network, load_network

_SIDE: Final = 512
_CLASSES: Final = 19
#: the square around the face that is looked at, in widths of its box: hair and neck are in it
_MARGIN: Final = 2.2
_MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION: Final = np.array([0.229, 0.224, 0.225], np.float32)

REGIONS: Final = {
    "skin": (1,), "brows": (2, 3), "eyes": (4, 5), "glasses": (6,), "ears": (7, 8), "nose": (10,),
    "mouth": (11,), "lips": (12, 13), "neck": (14,), "cloth": (16,), "hair": (17,), "hat": (18,),
}  # fmt: skip


class BiSeNetParser:
    """Nineteen classes at 512 x 512, around one face."""

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._name = name

    @classmethod
    def load(cls, path: Path) -> "BiSeNetParser":
        return cls(load_network(path), path.stem)

    @property
    def about(self) -> About:
        return About("bisenet", self._name, "the file's own; CelebAMask-HQ is non-commercial")

    def parse(self, rgb: Pixels, face: Face) -> dict[str, Mask]:
        left, top, right, bottom = face.box
        centre = ((left + right) / 2, (top + bottom) / 2)
        crop = level_square(rgb, centre, _MARGIN * face.width, eye_angle(face.eyes), _SIDE)
        blob = (crop.rgb.astype(np.float32) / 255.0 - _MEAN) / _DEVIATION
        scores = self._network(np.ascontiguousarray(blob.transpose(2, 0, 1)[None]))[0]
        if scores.shape[1:] != (_CLASSES, _SIDE, _SIDE):
            raise FaceError(f"not a BiSeNet with nineteen classes: output {scores.shape}")
        classes = scores[0].argmax(axis=0)
        back = cv2.invertAffineTransform(crop.to_crop)
        size = (rgb.shape[1], rgb.shape[0])
        return {
            region: np.asarray(
                cv2.warpAffine(np.isin(classes, numbers).astype(np.float32), back, size), np.float32
            )
            for region, numbers in REGIONS.items()
        }
