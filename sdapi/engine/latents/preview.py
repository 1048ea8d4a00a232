"""A latent as a small picture, without the VAE."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

#: Least-squares fit of RGB to SD1's four latent channels, published with many decoders; close
#: enough for SD2 and SDXL.
_RGB = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)


def approximate(latent: Tensor) -> list[Image.Image]:
    """Pictures of an eighth of the size from latents [B, C, h, w].

    Of other than 4 channels the first is shown.
    """
    latent = latent.detach().float().cpu()
    if latent.shape[1] == len(_RGB):
        pixels = torch.einsum("bchw,cr->brhw", latent, torch.tensor(_RGB))
    else:
        pixels = latent[:, :1].expand(-1, 3, -1, -1) / 4
    scaled = ((pixels + 1) / 2).clamp(0, 1) * 255
    return [Image.fromarray(p.permute(1, 2, 0).numpy().astype(np.uint8)) for p in scaled]
