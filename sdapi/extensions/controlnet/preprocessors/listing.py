"""The table as clients see it (contract: controlnet-api 11 and 12)."""

from typing import Any, Final

from sdapi.errors import UnknownName, near_names
from sdapi.extensions.controlnet.preprocessors.preprocessor import Preprocessor
from sdapi.extensions.controlnet.preprocessors.table import PREPROCESSORS

#: the control types, in their order; "All" has every preprocessor and every model
TAGS: Final = (
    "All", "Canny", "Depth", "IP-Adapter", "Inpaint", "Instant-ID", "InstructP2P", "Lineart",
    "MLSD", "NormalMap", "OpenPose", "Recolor", "Reference", "Revision", "Scribble",
    "Segmentation", "Shuffle", "SoftEdge", "SparseCtrl", "T2I-Adapter", "Tile",
)  # fmt: skip

_BY_NAME: Final = {p.label: p for p in PREPROCESSORS} | {p.name: p for p in PREPROCESSORS}


def find(name: str) -> Preprocessor:
    """The preprocessor of a name or label; raises `UnknownName` with the near ones."""
    found = _BY_NAME.get(name)
    if found is None:
        raise UnknownName(
            f"module({name}) not found in supported modules; near {near_names(name, _BY_NAME)}"
        )
    return found


def _shown(preprocessor: Preprocessor, *, alias_names: bool) -> str:
    return preprocessor.label if alias_names else preprocessor.name


def module_list(*, alias_names: bool = False) -> list[str]:
    """Names, or labels, in the reference's order."""
    return [_shown(p, alias_names=alias_names) for p in PREPROCESSORS]


def module_detail(*, alias_names: bool = False) -> dict[str, dict[str, Any]]:
    """What each takes, by the name it is listed under."""
    return {
        _shown(p, alias_names=alias_names): {
            "model_free": p.model_free,
            "sliders": [slider.describe() for slider in p.sliders],
        }
        for p in PREPROCESSORS
    }


def modules_of(tag: str) -> list[str]:
    """The labels that a control type offers; `none` is always the first."""
    found = [p for p in PREPROCESSORS if tag == "All" or tag in p.tags or p.name == "none"]
    return [p.label for p in found]
