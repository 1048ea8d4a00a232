"""LaMa (Suvorov et al. 2022) fills what is masked; spandrel has the network."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.engine.control.annotators.sliders import Sliders
from sdapi.engine.weights.state_dict import read_state_dict
from sdapi.errors import ModelUnusable

#: what of a training's file draws
_GENERATOR: Final = "generator."
_MASKED: Final = 127


def load(files: tuple[Path, ...]) -> Any:
    """The network on the CPU; raises `ModelUnusable`."""
    import spandrel  # its forty architectures take seconds

    (path,) = files
    weights = {k: v for k, v in read_state_dict(path).items() if k.startswith(_GENERATOR)}
    try:
        network = spandrel.MAIN_REGISTRY.load(weights)
    except (spandrel.UnsupportedModelError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelUnusable(f"{path.name}: it holds no weights of LaMa ({reason})") from error
    if not isinstance(network, spandrel.MaskedImageModelDescriptor):
        raise ModelUnusable(f"{path.name}: it holds something else than its name says")
    return network.eval()


def fill(network: Any, canvas: Pixels, _: Sliders) -> Pixels:
    """A canvas [H, W, 4] with what its mask covers drawn anew; the mask stays."""
    mask = canvas[:, :, 3:] > _MASKED
    with torch.inference_mode():
        made: Tensor = network(_planes(canvas[:, :, :3] / 255), _planes(mask))
    picture = (made[0] * 255).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return np.concatenate([picture, canvas[:, :, 3:]], axis=2)


def _planes(pixels: Any) -> Tensor:
    """[H, W, C] as [1, C, H, W], float32."""
    return torch.from_numpy(np.ascontiguousarray(pixels, np.float32)).permute(2, 0, 1)[None]
