"""The size that a checkpoint draws best at, without loading it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import yaml

#: of SD 1 and of SDXL, where nothing else is said
USUAL: Final = {"sd15": 512, "xl": 1024}
#: sizes are multiples of it, as every stage of a UNet halves them
_MULTIPLE: Final = 32
_USUAL_LEVELS: Final = 4


def native_side(own: Mapping[str, Any], sidecar: Path | None, kind: str) -> int:
    """The side of a square picture in pixels, a multiple of 32.

    `own` is the `portrait` object of the checkpoint's metadata file; after its `native_size` the
    sidecar's `image_size`, in latents, counts.
    """
    size = own.get("native_size")
    if not isinstance(size, int) or isinstance(size, bool):
        size = _of_sidecar(sidecar) or USUAL[kind]
    return max(size // _MULTIPLE, 1) * _MULTIPLE


def _of_sidecar(path: Path | None) -> int | None:
    if path is None:
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    params = _at(content, "model", "params")
    latents = _at(params, "image_size")
    levels = _at(params, "first_stage_config", "params", "ddconfig", "ch_mult")
    count = len(cast("list[object]", levels)) if isinstance(levels, list) else _USUAL_LEVELS
    return latents * 2 ** (count - 1) if isinstance(latents, int) else None


def _at(content: object, *keys: str) -> object:
    for key in keys:
        content = cast("dict[str, object]", content).get(key) if isinstance(content, dict) else None
    return content
