"""Prepared pictures as the tensors that control models read (contract: controlnet-api 5 and 6)."""

import numpy as np
import torch
from torch import Tensor

from sdapi.engine.control.unit import ControlUnit, Pixels

_MASKED = 127


def hint_tensor(pixels: Pixels, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A picture [h, w, 3 or 4] as [1, 3, h, w], 0 to 1; what its mask covers is -1."""
    picture = _planes(pixels[:, :, :3], device)
    mask = mask_tensor(pixels, device)
    if mask is not None:
        picture = picture * (1 - mask) - mask
    return picture.to(dtype)


def mask_tensor(pixels: Pixels, device: torch.device) -> Tensor | None:
    """The mask of a picture, [1, 1, h, w] of 0 and 1, float32; None for one without."""
    if pixels.shape[2] == 3:
        return None
    return (_planes(pixels[:, :, 3:], device) > _MASKED / 255).float()


def region_tensor(unit: ControlUnit, device: torch.device) -> Tensor | None:
    """Where a unit acts, [1, 1, h, w] of 0 to 1, float32; None for everywhere."""
    if unit.region is None:
        return None
    return torch.from_numpy(unit.region)[None, None].to(device)


def _planes(pixels: Pixels, device: torch.device) -> Tensor:
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(planes)[None].to(device) / 255
