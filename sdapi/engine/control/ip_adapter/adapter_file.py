"""The weights of an IP-Adapter's file, in its two parts."""

import re
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from sdapi.engine.weights.state_dict import StateDict
from sdapi.errors import ModelUnusable

_LAYER_KEY = re.compile(r"(\d+)\.to_([kv])_ip\.weight")
#: of FaceID files: a LoRA that is published as a file of its own, too
_LORA_KEY = re.compile(r"\d+\.to_(q|k|v|out)_lora\.(up|down)\.weight")
IMAGE_PART: Final = "image_proj."
LAYER_PART: Final = "ip_adapter."


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """What a file holds."""

    projection: StateDict
    #: keys and values of each cross-attention [inner, context]: down, up, then the middle
    layers: tuple[tuple[Tensor, Tensor], ...]


def read_adapter(weights: StateDict, name: str) -> AdapterWeights:
    """Take a file's weights apart; raises `ModelUnusable` for one that is not used."""
    projection: StateDict = {}
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in weights.items():
        if key.startswith(IMAGE_PART):
            projection[key.removeprefix(IMAGE_PART)] = value
            continue
        inner = key.removeprefix(LAYER_PART)
        if match := _LAYER_KEY.fullmatch(inner):
            found.setdefault(int(match[1]), {})[match[2]] = value
        elif not _LORA_KEY.fullmatch(inner):
            raise ModelUnusable(f"{name}: nothing is known of its weight {key!r}")
    if not found or any(set(pair) != {"k", "v"} for pair in found.values()):
        raise ModelUnusable(f"{name}: some of its layers lack keys or values")
    ordered = [found[number] for number in sorted(found)]
    return AdapterWeights(projection, tuple((pair["k"], pair["v"]) for pair in ordered))
