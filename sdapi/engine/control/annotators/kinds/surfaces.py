"""Depth and surface normals, by `controlnet_aux` and transformers."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sdapi.engine.control.annotators.auxiliary import (
    controlnet_aux,
    network_of,
    own_size,
    quietly,
)
from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.engine.control.annotators.sliders import Sliders
from sdapi.engine.control.annotators.transformers_folder import from_folder
from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.state_dict import read_state_dict

#: tables that older files hold and newer layers compute
_COMPUTED = "relative_position_index"


class _Midas(nn.Module):
    """Depth by DPT-hybrid, as the detector calls it."""

    def __init__(self) -> None:
        super().__init__()
        depth = controlnet_aux().midas.api.DPTDepthModel
        self.model = depth(path=None, backbone="vitb_rn50_384", non_negative=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def load_midas(files: tuple[Path, ...]) -> Any:
    """MiDaS 3, DPT-hybrid (Ranftl et al. 2021)."""
    network = _Midas()
    network.model = network_of(files[0], lambda: network.model)
    return controlnet_aux().MidasDetector(network)


def midas_depth(detector: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Near is white."""
    return quietly(detector, canvas, **own_size(canvas))


def midas_normal(detector: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Normals from depth; what is farther than the first slider is flat."""
    made = quietly(
        detector,
        canvas,
        bg_th=at.a,
        depth_and_normal=True,
        **own_size(canvas),
    )
    return np.ascontiguousarray(made[1], np.uint8)


def load_zoe(files: tuple[Path, ...]) -> Any:
    """ZoeDepth (Bhat et al. 2023)."""
    aux = controlnet_aux()
    config = aux.zoe.get_config("zoedepth", "infer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old layers are built by old names
        network = aux.zoe.ZoeDepth.build_from_config(config)
    # Its own `load_state_dict` takes no arguments, that of a module around it does.
    holder = nn.ModuleDict({"network": network})
    expected = holder.state_dict().keys()
    weights = {f"network.{name}": tensor for name, tensor in read_state_dict(files[0]).items()}
    known = {n: t for n, t in weights.items() if n in expected or not n.endswith(_COMPUTED)}
    assign(holder, known, files[0].name, torch.float32)
    return aux.ZoeDetector(network)


def zoe(detector: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Near is white."""
    return quietly(detector, canvas, **own_size(canvas))


def load_leres(files: tuple[Path, ...]) -> Any:
    """LeReS (Yin et al. 2021)."""
    aux = controlnet_aux()
    network = network_of(files[0], lambda: aux.leres.RelDepthModel(backbone="resnext101"))
    return aux.LeresDetector(network, None)


def leres(detector: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Near is white; the sliders take away what is near and what is far, in percent."""
    return quietly(detector, canvas, thr_a=at.a, thr_b=at.b, **own_size(canvas))


def load_normal_bae(files: tuple[Path, ...]) -> Any:
    """Normals with their uncertainty (Bae et al. 2021)."""
    aux = controlnet_aux()
    asked = SimpleNamespace(
        mode="client",
        architecture="BN",
        pretrained="scannet",
        sampling_ratio=0.4,
        importance_ratio=0.7,
    )
    return aux.NormalBaeDetector(network_of(files[0], lambda: aux.normalbae.NNET(asked)))


def normal_bae(detector: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Red is right, green is up, blue is towards the viewer."""
    return quietly(detector, canvas, **own_size(canvas))


def load_depth_anything(files: tuple[Path, ...]) -> Any:
    """Depth Anything (Yang et al. 2024), or any depth model of transformers."""
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    folder = files[0]
    return from_folder(AutoImageProcessor, folder), from_folder(AutoModelForDepthEstimation, folder)


def depth_anything(loaded: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Near is white."""
    processor, network = loaded
    with torch.inference_mode():
        inputs = processor(images=canvas, return_tensors="pt")
        depth = network(**inputs).predicted_depth[0].float().cpu().numpy()
    return _grey(depth, canvas)


def _grey(depth: NDArray[np.float32], canvas: Pixels) -> Pixels:
    """Depth spread over 0..255 at the canvas' size."""
    height, width = canvas.shape[:2]
    resized = cv2.resize(depth, (width, height), interpolation=cv2.INTER_CUBIC)
    level = np.asarray(resized, np.float32) - float(resized.min())
    pixels = (
        (level / max(float(level.max()), float(np.finfo(np.float32).tiny)) * 255.0)
        .clip(0, 255)
        .astype(np.uint8)
    )
    return np.repeat(pixels[:, :, None], 3, axis=2)
