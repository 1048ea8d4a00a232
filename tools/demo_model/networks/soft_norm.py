"""Group norms that keep amplitudes, and their disappearance into ordinary weights.

With few channels per group a group norm forgets how strong a flat colour was. A large epsilon
keeps it: weak signals then pass almost linearly. The file format has no place for an epsilon, but
norm(x, eps) equals norm(f x, f^2 eps): scaling all that feeds the norms by f gives weights that do
the same with the ordinary epsilon.
"""

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

_SOFT_EPS, _ORDINARY_EPS = 0.1, 1e-6


def soften(vae: AutoencoderKL) -> None:
    """From ordinary weights to equivalent ones for large epsilons, in place."""
    _scale(vae, (_SOFT_EPS / _ORDINARY_EPS) ** 0.5)
    set_soft_eps(vae)


def harden(vae: AutoencoderKL) -> None:
    """Back to weights for the ordinary epsilon, in place."""
    _scale(vae, (_ORDINARY_EPS / _SOFT_EPS) ** 0.5)
    _set_eps(vae, _ORDINARY_EPS)


def set_soft_eps(vae: AutoencoderKL) -> None:
    """Large epsilons without touching the weights, for fresh or resumed training."""
    _set_eps(vae, _SOFT_EPS)


def _set_eps(vae: AutoencoderKL, eps: float) -> None:
    for module in vae.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = eps


@torch.no_grad()
def _scale(vae: AutoencoderKL, factor: float) -> None:
    """Scale the residual stream, and what lies between the two norms of a residual block."""
    whole = [vae.encoder.conv_in, vae.decoder.conv_in]
    bias_only: list[nn.Module] = []
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            whole += [module.conv1, module.conv2]
            bias_only += [module.conv_shortcut] if module.conv_shortcut is not None else []
        elif isinstance(module, Attention):
            whole.append(module.to_out[0])
        elif isinstance(module, Downsample2D | Upsample2D):
            bias_only.append(module.conv)
    for layer in whole:
        layer.weight.mul_(factor)
    for layer in (*whole, *bias_only):
        layer.bias.mul_(factor)
