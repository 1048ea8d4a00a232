"""Depth and segmentation from folders that transformers saved, with tiny random networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    ConvNextConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
    SegformerImageProcessor,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from sdapi.engine.control.annotators.annotators import Annotators
from sdapi.engine.control.annotators.detected_map import Pixels


@pytest.fixture
def canvas() -> Pixels:
    return np.random.RandomState(0).randint(0, 255, (64, 128, 3)).astype(np.uint8)


def save_depth_anything(folder: Path) -> DepthAnythingForDepthEstimation:
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    network = DepthAnythingForDepthEstimation(config).eval()
    network.save_pretrained(folder)
    size = {"height": 56, "width": 56}
    DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(
        folder
    )
    return network


@pytest.mark.parametrize("name", ["depth_anything", "depth_anything_v2"])
def test_depth_fills_the_range_of_grey(tmp_path: Path, canvas: Pixels, name: str) -> None:
    save_depth_anything(tmp_path / name)

    made = Annotators(tmp_path).detect(name, canvas, 0.5, 0.5).pixels

    assert made.shape == canvas.shape
    assert np.array_equal(made[:, :, 0], made[:, :, 2])
    assert made.max() > 200 > 60 > made.min()


def test_segmentation_has_the_colours_of_ade20k(tmp_path: Path, canvas: Pixels) -> None:
    torch.manual_seed(0)
    backbone = ConvNextConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        num_labels=150,
        auxiliary_in_channels=16,
        auxiliary_channels=8,
    )
    folder = tmp_path / "upernet_ade20k"
    UperNetForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)

    made = Annotators(tmp_path).detect("segmentation", canvas, 0.5, 0.5).pixels

    assert made.shape == canvas.shape
    assert (made.reshape(-1, 3).tolist()[0]) in _palette()


def _palette() -> list[list[int]]:
    from sdapi.engine.control.annotators.auxiliary import controlnet_aux

    return controlnet_aux().util.ade_palette()
