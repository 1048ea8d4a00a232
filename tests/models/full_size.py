"""Models of the published sizes with random weights, made on the device: no gigabytes on a disk."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdapi.engine.checkpoints.architecture import (
    SD_SCALE_FACTOR,
    SDXL_SCALE_FACTOR,
    Family,
    Sidecar,
    head_counts,
)
from sdapi.engine.checkpoints.checkpoint import Components, alphas_cumprod
from sdapi.engine.checkpoints.reference_unet import use_reference_upsampling
from sdapi.engine.checkpoints.unet_keys import UNetShape
from sdapi.engine.checkpoints.unet_keys import diffusers_config as unet_config
from sdapi.engine.checkpoints.vae_keys import VAEShape
from sdapi.engine.checkpoints.vae_keys import diffusers_config as vae_config
from sdapi.engine.text.chunks import END, START
from sdapi.engine.text.encoding.text_encoder import HEAD_WIDTH, TextEncoder

VOCABULARY = 49_408
#: SDXL's six sizes, each as a sinusoid of 256 numbers
_SIZES_WIDTH = 6 * 256


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that tell one published model from another."""

    family: Family
    #: of the UNet, one entry per resolution
    channels: tuple[int, ...]
    transformer_depth: tuple[int, ...]
    middle_depth: int
    #: (width, layers) of each text encoder
    texts: tuple[tuple[int, int], ...]
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)


SD1 = Shape(Family.SD1, (320, 640, 1280, 1280), (1, 1, 1, 0), 1, ((768, 12),))
SDXL = Shape(Family.SDXL, (320, 640, 1280), (0, 2, 10), 10, ((768, 12), (1280, 32)))


def shrunk(shape: Shape) -> Shape:
    """The same in a size that a CPU draws with in no time."""
    return replace(
        shape,
        channels=tuple(c // 10 for c in shape.channels),
        transformer_depth=tuple(min(d, 2) for d in shape.transformer_depth),
        middle_depth=min(shape.middle_depth, 2),
        texts=tuple((HEAD_WIDTH * (i + 1), 2) for i in range(len(shape.texts))),
        vae_channels=(32, 32, 64, 64),
    )


def build(shape: Shape, device: torch.device, dtype: torch.dtype, *, seed: int = 0) -> Components:
    """A checkpoint of random weights as loading a file would make it; float16 stays finite."""
    torch.manual_seed(seed)
    with _new_tensors(device, dtype):
        unet = UNet2DConditionModel(**_unet_config(shape))
        use_reference_upsampling(unet)
        vae = AutoencoderKL(
            **vae_config(VAEShape(shape.vae_channels, 2, 4, True), _scale_factor(shape))
        )
        encoders = tuple(_text_encoder(shape, index) for index in range(len(shape.texts)))
    for module in (unet, vae, *(encoder.model for encoder in encoders)):
        module.requires_grad_(False).eval()
    return Components(
        shape.family,
        unet,
        vae,
        encoders,
        v_prediction=False,
        scale_factor=_scale_factor(shape),
        alphas_cumprod=alphas_cumprod(0.00085, 0.012),
    )


def _scale_factor(shape: Shape) -> float:
    return SDXL_SCALE_FACTOR if shape.family is Family.SDXL else SD_SCALE_FACTOR


def _unet_config(shape: Shape) -> dict[str, object]:
    widths = [width for width, _ in shape.texts]
    is_sdxl = shape.family is Family.SDXL
    keys = UNetShape(
        in_channels=4,
        out_channels=4,
        channels=shape.channels,
        resnets=2,
        transformer_depth=shape.transformer_depth,
        middle_depth=shape.middle_depth,
        context_width=sum(widths),
        linear_projection=is_sdxl,
        vector_width=widths[-1] + _SIZES_WIDTH if is_sdxl else None,
    )
    return unet_config(keys, head_counts(shape.family, shape.channels, Sidecar()), sample_size=64)


def _text_encoder(shape: Shape, index: int) -> TextEncoder:
    width, layers = shape.texts[index]
    is_openclip = index == 1
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // HEAD_WIDTH,
            hidden_act="gelu" if is_openclip else "quick_gelu",
            bos_token_id=START,
            eos_token_id=END,
        )
    )
    # Emphasis divides by the mean, which a norm that was never trained makes 0.
    nn.init.constant_(model.final_layer_norm.bias, 0.1)
    projection = nn.Linear(width, width, bias=False).weight.detach() if is_openclip else None
    return TextEncoder(model, projection, pad_token=0 if is_openclip else END)


@contextmanager
def _new_tensors(device: torch.device, dtype: torch.dtype) -> Generator[None]:
    """Let modules be born where and in the type they are wanted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)
