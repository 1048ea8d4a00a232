"""Tensors into a module that was built empty: neither may have more names than the other."""

import torch

from sdapi.engine.weights.state_dict import StateDict
from sdapi.errors import ModelUnusable


def assign(
    model: torch.nn.Module, tensors: StateDict, part: str, dtype: torch.dtype
) -> torch.nn.Module:
    """Put the tensors into a model that was built empty; refuse differences in names or shapes."""
    expected = model.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise ModelUnusable(f"{part} lacks {len(missing)} weights, such as {missing[0]!r}")
    surplus = sorted(tensors.keys() - expected.keys())
    if surplus:
        raise ModelUnusable(f"{part} has {len(surplus)} weights too many, such as {surplus[0]!r}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ModelUnusable(
                f"{part}: {name!r} has shape {list(tensor.shape)}, "
                f"expected {list(expected[name].shape)}"
            )
    casted = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    model.load_state_dict(casted, strict=True, assign=True)
    return model.requires_grad_(False).eval()
