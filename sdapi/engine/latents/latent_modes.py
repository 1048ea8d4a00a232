"""The names under which hires fix enlarges latents instead of pictures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LatentMode:
    """How torch interpolates: its own name for it, and whether it smooths when shrinking."""

    name: str
    interpolation: str
    antialias: bool = False


#: In the webui's order; the first is what hires fix uses when nothing is named.
LATENT_MODES = (
    LatentMode("Latent", "bilinear"),
    LatentMode("Latent (antialiased)", "bilinear", antialias=True),
    LatentMode("Latent (bicubic)", "bicubic"),
    LatentMode("Latent (bicubic antialiased)", "bicubic", antialias=True),
    LatentMode("Latent (nearest)", "nearest"),
    LatentMode("Latent (nearest-exact)", "nearest-exact"),
)
LATENT_MODE_BY_NAME = {mode.name: mode for mode in LATENT_MODES}
