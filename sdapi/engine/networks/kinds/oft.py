"""OFT (Qiu et al. 2023) and BOFT (Liu et al. 2023): the outputs of a layer, rotated."""

import torch
from torch import Tensor

from sdapi.engine.networks.layer import Change, Parts


def boft_or_oft(parts: Parts, weight: Tensor, dyn: int | None) -> Change:
    """OFT from blocks [n, b, b]; BOFT from [m, n, b, b], m times with outputs regrouped.

    The blocks are halves of skew-symmetric matrices, which Cayley's transform turns into rotations;
    `constraint` bounds their norm.
    """
    blocks = parts["oft_blocks"].float()
    bound = parts.get("constraint")
    rotations = _cayley(blocks, None if bound is None else bound.float() * len(weight))
    rotate = _rotate_outputs if blocks.ndim == 3 else _rotate_in_butterflies
    return _difference(rotate(rotations, weight.float()), parts, weight)


def oft_diag(parts: Parts, weight: Tensor, dyn: int | None) -> Change:
    """Older LyCORIS files hold the rotations [n, b, b] themselves."""
    rotated = _rotate_outputs(parts["oft_diag"].float(), weight.float())
    return _difference(rotated, parts, weight)


def _difference(rotated: Tensor, parts: Parts, weight: Tensor) -> Change:
    if (lengths := parts.get("rescale")) is not None:
        rotated = rotated * lengths.float().reshape(-1, *[1] * (weight.ndim - 1))
    return Change((rotated - weight.float()).to(weight.dtype))


def _cayley(blocks: Tensor, bound: Tensor | None) -> Tensor:
    skew = blocks - blocks.transpose(-1, -2)
    if bound is not None:
        norm = torch.linalg.vector_norm(skew)
        skew = skew * ((norm.clamp(max=bound) + 1e-8) / (norm + 1e-8))
    eye = torch.eye(blocks.shape[-1], device=blocks.device)
    return (eye + skew) @ torch.linalg.inv(eye - skew)


def _rotate_outputs(rotations: Tensor, weight: Tensor) -> Tensor:
    """Rotate each block of outputs by the transpose, as training programs do."""
    blocks = weight.reshape(*rotations.shape[:2], -1)
    return torch.einsum("nij,nik->njk", rotations, blocks).reshape(weight.shape)


def _rotate_in_butterflies(rotations: Tensor, weight: Tensor) -> Tensor:
    """Rotate blocks of outputs that lie ever farther apart, round after round."""
    size = rotations.shape[-1]
    for round_, rotation in enumerate(rotations):
        group = 2**round_ * (size // 2)
        # [c, 2, group, …]: pairs of groups, dealt out so that partners stand side by side
        dealt = weight.reshape(-1, 2, group, *weight.shape[1:]).transpose(1, 2)
        blocks = dealt.reshape(-1, size, weight[0].numel())
        turned = torch.einsum("nij,njk->nik", rotation, blocks).reshape(dealt.shape)
        weight = turned.transpose(1, 2).reshape(weight.shape)
    return weight
