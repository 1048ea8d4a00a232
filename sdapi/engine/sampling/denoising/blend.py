"""Inpainting in latent space: what of the init latent stays.

Contract: webui-generation 7 and 10.7.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Blend(Protocol):
    """Mixes the init latent into latents [B, C, h, w] while they are sampled and at the end."""

    def during(self, latent: Tensor, sigma: float) -> Tensor:
        """At every denoiser call; timestep samplers give the time step for `sigma`."""
        ...

    def after(self, latent: Tensor) -> Tensor:
        """Once, when sampling has ended."""
        ...


@dataclass(frozen=True, slots=True)
class LinearBlend:
    """The init latent where the mask is black."""

    init: Tensor
    #: 1 where the picture is drawn anew [h, w]
    repaint: Tensor

    def during(self, latent: Tensor, sigma: float) -> Tensor:
        return self.after(latent)

    def after(self, latent: Tensor) -> Tensor:
        return latent * self.repaint + self.init * (1 - self.repaint)
