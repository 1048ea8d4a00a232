"""What `/controlnet/control_types` lists (contract: controlnet-api 12)."""

from collections.abc import Sequence
from typing import Any, Final

from sdapi.extensions.controlnet.model_files import NONE, ControlModel
from sdapi.extensions.controlnet.preprocessors import TAGS, modules_of

_ALL: Final = "All"
#: parts of the names of models that belong to a type, besides the type's own
_PARTS: Final = {
    "Segmentation": ("seg",),
    "NormalMap": ("normal",),
    "T2I-Adapter": ("t2i_adapter", "t2iadapter", "t2ia"),
    "IP-Adapter": ("ip_adapter", "ipadapter"),
    "OpenPose": ("openpose", "densepose"),
    "Instant-ID": ("instant_id", "instantid"),
    "Scribble": ("sketch",),
    "Tile": ("blur",),
    "InstructP2P": ("ip2p",),
}
_UNION: Final = "union"
#: what union models can do
_UNION_TYPES: Final = {
    "Canny", "Depth", "Inpaint", "Lineart", "MLSD", "NormalMap", "OpenPose", "Scribble",
    "Segmentation", "SoftEdge", "Tile",
}  # fmt: skip


def control_types(models: Sequence[ControlModel]) -> dict[str, dict[str, Any]]:
    """Each type with its modules and models, and which of them pages choose first."""
    return {tag: _describe(tag, models) for tag in TAGS}


def _describe(tag: str, models: Sequence[ControlModel]) -> dict[str, Any]:
    modules = modules_of(tag)
    names = [NONE, *(model.name for model in models if _belongs(model, tag))]
    is_all = tag == _ALL
    return {
        "module_list": modules,
        "model_list": names,
        "default_option": modules[0] if is_all or len(modules) < 2 else modules[1],
        "default_model": NONE if is_all else _default_model(names),
    }


def _belongs(model: ControlModel, tag: str) -> bool:
    parts = [tag.lower(), *_PARTS.get(tag, ())]
    if tag in _UNION_TYPES:
        parts.append(_UNION)
    return tag == _ALL or any(part in model.base_name.lower() for part in parts)


def _default_model(names: Sequence[str]) -> str:
    """The first of version 1.1, else the first there is."""
    newer = next((name for name in names if "11" in name.split("[")[0]), None)
    return newer or (names[1] if len(names) > 1 else NONE)
