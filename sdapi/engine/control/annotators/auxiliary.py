"""The package `controlnet_aux`, which has the networks of most annotators."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.engine.weights.model_file import ModelFile
from sdapi.engine.weights.small_network import load_network


def controlnet_aux() -> Any:
    """The package, imported without what it and timm say about parts that are not used here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import controlnet_aux as package  # takes seconds
    return package


def network_of(file: Path, build: Callable[[], nn.Module]) -> Any:
    """A network filled with a file's weights, all of them; raises `ModelUnusable`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old layers are built by old names
        return load_network(ModelFile.of(file), build).module


def quietly(detector: Callable[..., Any], canvas: Pixels, **arguments: Any) -> Any:
    """What a detector makes of a canvas, without its warnings about newer libraries."""
    import torch

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        return detector(canvas, **arguments)


def own_size(canvas: Pixels) -> dict[str, Any]:
    """Arguments that let a detector keep a canvas at its size, and answer with an array."""
    side = min(canvas.shape[:2])
    return {"detect_resolution": side, "image_resolution": side, "output_type": "np"}
