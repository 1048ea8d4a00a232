"""What an img2img job starts from: pictures, and the part of them that is drawn anew."""

from dataclasses import dataclass
from enum import Enum

from PIL.Image import Image


class MaskedContent(Enum):
    """What a sampler finds under a mask, in latents."""

    PICTURE = "picture"
    NOISE = "noise"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class SoftInpainting:
    """How soft inpainting blends (contract: webui-scripts 12), its symbols in brackets."""

    schedule_bias: float = 1.0  # b
    preservation_strength: float = 0.5  # k
    contrast_boost: float = 4.0  # c
    mask_influence: float = 0.0  # m
    difference_threshold: float = 0.5  # t
    difference_contrast: float = 2.0  # d


@dataclass(frozen=True, slots=True)
class InpaintMask:
    """What is drawn anew: white in a grey picture of the job's size."""

    image: Image
    #: black and white at the resolution of latents
    rounds: bool = True
    #: decides over latents in place of `image`
    latent_image: Image | None = None
    content: MaskedContent = MaskedContent.PICTURE
    #: None blends linearly
    soft: SoftInpainting | None = None


@dataclass(frozen=True, slots=True)
class Inversion:
    """How the noise behind a picture is found, and how much of it is used.

    Contract: webui-scripts 9.
    """

    #: what the picture shows
    prompt: str
    negative_prompt: str
    steps: int
    cfg_scale: float
    #: share of ordinary noise, 0 to 1
    randomness: float = 0.0
    adjusts_sigma: bool = False


@dataclass(frozen=True, slots=True)
class InitImages:
    """What img2img starts from: RGB pictures of the job's size, one or as many as a batch."""

    images: tuple[Image, ...]
    denoising_strength: float
    #: pictures keep their own size and their latents are resized (resize mode 3)
    latent_resize: bool = False
    noise_multiplier: float = 1.0
    mask: InpaintMask | None = None
    #: how strongly an instruct-pix2pix checkpoint keeps to the picture; None or 1: not by itself
    image_cfg_scale: float | None = None
    #: the run starts from the noise behind the picture, and the mask acts during the run only
    inversion: Inversion | None = None
