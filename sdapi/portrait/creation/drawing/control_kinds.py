"""Which kind of checkpoint a control model is for: what its file tells, else its name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

from sdapi.portrait.state.records import Base
from sdapi.services.catalog.model_files.safetensors_header import read_header

#: `other` is one that fits no portrait's checkpoint
Kind = Base | Literal["other"]
#: layers that read the text, the width of which is a family's own: ControlNets', IP-Adapters'
_READS_TEXT: Final = ("attn2.to_k.weight", "to_k_ip.weight")
_WIDTHS: Final[Mapping[int, Kind]] = {768: "sd15", 1024: "other", 2048: "xl"}
_XL: Final = re.compile("xl", re.IGNORECASE)
_OTHER: Final = re.compile(
    r"(sd|stable-?diffusion)[-_. ]?v?(2|3)|flux|hunyuan|kolors|pixart|qwen", re.IGNORECASE
)


def kind_of_file(path: Path) -> Kind | None:
    """By the width of the texts that it reads; None where its header does not say."""
    if path.suffix.lower() != ".safetensors":
        return None
    for key, entry in read_header(path).items():
        if key.endswith(_READS_TEXT) and isinstance(entry, dict):
            shape = cast("dict[str, Any]", entry).get("shape")
            width = cast("list[Any]", shape)[-1] if isinstance(shape, list) and shape else None
            return _WIDTHS.get(width) if isinstance(width, int) else None
    return None


def kind_of_name(name: str) -> Kind:
    """SD 1, for which most were made, unless it names another family."""
    if _OTHER.search(name):
        return "other"
    return "xl" if _XL.search(name) else "sd15"
