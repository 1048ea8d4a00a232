"""Edges, lines and scribbles: HED, PiDiNet, TEED, line art and M-LSD, by `controlnet_aux`."""

from pathlib import Path
from typing import Any

import numpy as np

from sdapi.engine.control.annotators.auxiliary import (
    controlnet_aux,
    network_of,
    own_size,
    quietly,
)
from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.engine.control.annotators.sliders import Sliders


def load_hed(files: tuple[Path, ...]) -> Any:
    """HED as it was trained anew for ControlNet (Xie and Tu 2015)."""
    aux = controlnet_aux()
    return aux.HEDdetector(network_of(files[0], aux.hed.ControlNetHED_Apache2))


def hed(detector: Any, canvas: Pixels, at: Sliders, **how: bool) -> Pixels:
    """Soft edges; `safe` in few steps, `scribble` as strokes."""
    return quietly(detector, canvas, **own_size(canvas), **how)


def load_pidinet(files: tuple[Path, ...]) -> Any:
    """PiDiNet (Su et al. 2021)."""
    aux = controlnet_aux()
    return aux.PidiNetDetector(network_of(files[0], aux.pidi.pidinet))


def pidinet(detector: Any, canvas: Pixels, at: Sliders, **how: bool) -> Pixels:
    """Soft edges; `safe` in few steps, `scribble` as strokes, `apply_filter` in black and white."""
    return quietly(detector, canvas, **own_size(canvas), **how)


def load_teed(files: tuple[Path, ...]) -> Any:
    """TEED (Soria et al. 2023), whose layout Anyline shares."""
    return network_of(files[0], controlnet_aux().teed.TED)


def teed(network: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Soft edges in the steps of the first slider; 0 leaves them smooth."""
    detector = controlnet_aux().TEEDdetector(network)
    side = min(canvas.shape[:2])
    return quietly(
        detector, canvas, detect_resolution=side, safe_steps=round(at.a), output_type="np"
    )


def anyline(network: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """TEED's edges with the strokes of a drawing over them."""
    detector = controlnet_aux().AnylineDetector(network)
    made = quietly(detector, canvas, detect_resolution=min(canvas.shape[:2]), output_type="np")
    return np.asarray(made, np.uint8)


def load_lineart(files: tuple[Path, ...]) -> Any:
    """Line drawings (Chan et al. 2022), fine or coarse by the file."""
    generator = controlnet_aux().lineart.Generator
    return network_of(files[0], lambda: generator(3, 1, 3))


def lineart(network: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """White lines on black."""
    detector = controlnet_aux().LineartDetector(network, network)
    return quietly(detector, canvas, **own_size(canvas))


def load_lineart_anime(files: tuple[Path, ...]) -> Any:
    """Line drawings of anime pictures (Anime2Sketch, Xiang et al. 2021)."""
    from functools import partial

    from torch import nn

    generator = controlnet_aux().lineart_anime.UnetGenerator
    norm = partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    return network_of(files[0], lambda: generator(3, 1, 8, 64, norm_layer=norm, use_dropout=False))


def lineart_anime(network: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """White lines on black."""
    detector = controlnet_aux().LineartAnimeDetector(network)
    return quietly(detector, canvas, **own_size(canvas))


def load_mlsd(files: tuple[Path, ...]) -> Any:
    """M-LSD (Gu et al. 2022)."""
    aux = controlnet_aux()
    return aux.MLSDdetector(network_of(files[0], aux.mlsd.MobileV2_MLSD_Large))


def mlsd(detector: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Straight lines; the sliders are the least value and the least distance."""
    return quietly(detector, canvas, **own_size(canvas), thr_v=at.a, thr_d=at.b)
