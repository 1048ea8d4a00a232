"""Segmentation in colours: OneFormer, UPerNet and Mobile SAM."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdapi.engine.control.annotators.auxiliary import controlnet_aux, network_of, quietly
from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.engine.control.annotators.sliders import Sliders
from sdapi.engine.control.annotators.transformers_folder import from_folder

#: classes of ADE20K; their colours are what ControlNet was trained on
_ADE_CLASSES = 150


def load_semantic(files: tuple[Path, ...]) -> Any:
    """UPerNet, or any semantic segmentation of transformers that knows ADE20K's classes."""
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    folder = files[0]
    network = from_folder(AutoModelForSemanticSegmentation, folder)
    return from_folder(AutoImageProcessor, folder), network


def semantic(loaded: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Every class in its colour."""
    processor, network = loaded
    with torch.inference_mode():
        outputs = network(**processor(images=canvas, return_tensors="pt"))
    size = canvas.shape[:2]
    return _coloured(processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0])


def load_oneformer(files: tuple[Path, ...]) -> Any:
    """OneFormer (Jain et al. 2023), for ADE20K or COCO by the folder."""
    from transformers import OneFormerForUniversalSegmentation, OneFormerProcessor

    folder = files[0]
    network = from_folder(OneFormerForUniversalSegmentation, folder)
    return from_folder(OneFormerProcessor, folder), network


def oneformer(loaded: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Every class in its colour."""
    processor, network = loaded
    with torch.inference_mode():
        inputs = processor(images=canvas, task_inputs=["semantic"], return_tensors="pt")
        outputs = network(**inputs)
    size = canvas.shape[:2]
    return _coloured(processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0])


def _coloured(classes: torch.Tensor) -> Pixels:
    palette = np.asarray(controlnet_aux().util.ade_palette(), np.uint8)
    return palette[classes.cpu().numpy().clip(0, None) % _ADE_CLASSES]


def load_sam(files: tuple[Path, ...]) -> Any:
    """Mobile SAM (Zhang et al. 2023)."""
    package = controlnet_aux().segment_anything
    network = network_of(files[0], package.sam_model_registry["vit_t"])
    return package.SamAutomaticMaskGenerator(network)


def sam(generator: Any, canvas: Pixels, at: Sliders) -> Pixels:
    """Every part in a colour of its own, which the seed chooses; the smallest on top."""
    parts = quietly(generator.generate, canvas)
    colours = np.random.RandomState(at.seed & 0xFFFFFFFF)
    painted = np.zeros_like(canvas)
    for part in sorted(parts, key=lambda part: part["area"], reverse=True):
        painted[part["segmentation"]] = colours.randint(0, 255, 3)
    return painted
