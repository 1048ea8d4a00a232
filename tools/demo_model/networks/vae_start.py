"""First weights of the VAE: it begins as an 8x8 average of colours and learns the rest.

From random weights a small VAE with group norms takes most of its training to find colours at
all. Here three pairs of channels (+c, -c) carry the averaged picture through both halves: the
pairs survive group norms, whose mean they do not move, and silu(x) - silu(-x) = x lets them leave
as they came.
"""

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

_COLOURS = 3
_CARRIERS = 2 * _COLOURS
_LEVEL = 0.1  # amplitude of the carriers, well below the soft norms' epsilon
_GAIN = 3.0  # undoes level and norm
_RESIDUAL = 0.1  # share of their random weights that other branches keep
_LOG_VARIANCE = -7.0  # unit noise would drown all but brightness for long


@torch.no_grad()
def carry_colours(vae: AutoencoderKL) -> None:
    """Set the first weights in place; the channels that carry nothing keep their random ones."""
    average = torch.zeros(3, 3)
    average[:2, :2] = 0.25
    blur = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25]))
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            _keep_out(module.conv2)
            if module.conv_shortcut is not None:
                _pass_on(module.conv_shortcut, torch.ones(1, 1))
        elif isinstance(module, Attention):
            _keep_out(module.to_out[0])
        elif isinstance(module, Downsample2D):
            _pass_on(module.conv, average)
        elif isinstance(module, Upsample2D):
            _pass_on(module.conv, blur)
    _enter(vae.encoder.conv_in)
    _enter(vae.decoder.conv_in)
    _leave(vae.encoder.conv_out, _GAIN)
    _leave(vae.decoder.conv_out, _GAIN)
    _plain_latents(vae)


def _keep_out(layer: nn.Module) -> None:
    """A residual branch leaves the carriers alone and adds little to the rest."""
    layer.weight.mul_(_RESIDUAL)
    layer.weight[:_CARRIERS] = 0.0
    layer.bias[:_CARRIERS] = 0.0


def _pass_on(conv: nn.Conv2d, kernel: Tensor) -> None:
    """Carriers go from channel to same channel through one kernel."""
    conv.weight[:_CARRIERS] = 0.0
    conv.bias[:_CARRIERS] = 0.0
    for channel in range(_CARRIERS):
        conv.weight[channel, channel] = kernel


def _enter(conv: nn.Conv2d) -> None:
    """Three inputs become three pairs."""
    conv.weight[:_CARRIERS] = 0.0
    conv.bias[:_CARRIERS] = 0.0
    for colour in range(_COLOURS):
        conv.weight[2 * colour, colour, 1, 1] = _LEVEL
        conv.weight[2 * colour + 1, colour, 1, 1] = -_LEVEL


def _leave(conv: nn.Conv2d, gain: float) -> None:
    """Three pairs become three outputs; the other channels add a little."""
    conv.weight[:_COLOURS].mul_(_RESIDUAL)
    conv.bias[:_COLOURS] = 0.0
    for colour in range(_COLOURS):
        conv.weight[colour, :_CARRIERS] = 0.0
        conv.weight[colour, 2 * colour, 1, 1] = gain
        conv.weight[colour, 2 * colour + 1, 1, 1] = -gain


def _plain_latents(vae: AutoencoderKL) -> None:
    """Latents are what the encoder says, almost without noise."""
    latents = vae.post_quant_conv.weight.shape[0]
    vae.quant_conv.weight.zero_()
    vae.quant_conv.bias.zero_()
    vae.quant_conv.weight[:latents, :latents, 0, 0] = torch.eye(latents)
    vae.quant_conv.bias[latents:] = _LOG_VARIANCE
    vae.post_quant_conv.weight[:, :, 0, 0] = torch.eye(latents)
    vae.post_quant_conv.bias.zero_()
