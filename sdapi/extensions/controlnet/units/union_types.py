"""Which kind of map a union model is given."""

from typing import Final

from sdapi.engine.control.unit import UNION_TYPES
from sdapi.extensions.controlnet.preprocessors import Preprocessor

#: what maps of a control type are to union models
_OF_TAGS: Final = {
    "OpenPose": "OpenPose",
    "Depth": "Depth",
    "SoftEdge": "Soft Edge",
    "Scribble": "Soft Edge",
    "Canny": "Hard Edge",
    "Lineart": "Hard Edge",
    "MLSD": "Hard Edge",
    "NormalMap": "Normal Map",
    "Segmentation": "Segmentation",
    "Tile": "Tile",
    "Inpaint": "Inpaint",
}


def union_type(asked: str, module: Preprocessor) -> int | None:
    """The kind's place in `UNION_TYPES`: as asked for, else as the module's tags tell."""
    if asked != "Unknown":
        return UNION_TYPES.index(asked)
    told = next((_OF_TAGS[tag] for tag in module.tags if tag in _OF_TAGS), None)
    return None if told is None else UNION_TYPES.index(told)
