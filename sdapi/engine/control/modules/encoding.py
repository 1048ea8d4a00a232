"""Pictures of units as latents."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from PIL import Image
from torch import Tensor

from sdapi.engine.control.unit import Pixels
from sdapi.engine.latents import vae
from sdapi.engine.latents.init_latent import seeded_generator
from sdapi.errors import NanProduced

if TYPE_CHECKING:
    from sdapi.engine.sampling.sampling_pass import SamplingPass

_NAN_TEXT: Final = (
    "ControlNet failed to use VAE. It makes NaNs in its number type; try --no-half-vae. Use "
    "--disable-nan-check commandline argument to disable this check."
)


def picture_tensor(pixels: Pixels) -> Tensor:
    """A picture [h, w, 3 or 4] as [1, 3, h, w] in [-1, 1], without its mask."""
    return vae.to_tensor([Image.fromarray(pixels[:, :, :3])])


def encode_sampled(sampling: "SamplingPass", picture: Tensor) -> Tensor:
    """A latent of a picture [1, 3, H, W], as img2img has it; [1, C, h, w], float32.

    Raises `NanProduced`.
    """
    components = sampling.components
    noise = seeded_generator(sampling.job)
    with _own_words():
        return vae.encode(components.vae, picture, components.scale_factor, noise, components.nans)


def encode_mode(sampling: "SamplingPass", picture: Tensor) -> Tensor:
    """The most likely latent of a picture; otherwise as `encode_sampled`."""
    components = sampling.components
    with _own_words():
        latent = vae.encode_mode(components.vae, picture, components.nans)
    return latent * components.scale_factor


@contextmanager
def _own_words() -> Generator[None]:
    """Tell NaNs as the reference's extension does."""
    try:
        yield
    except NanProduced as error:
        raise NanProduced(_NAN_TEXT) from error
