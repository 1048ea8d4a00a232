"""Which number type each part of a model runs in."""

from dataclasses import dataclass
from typing import Final

import torch


@dataclass(frozen=True, slots=True)
class Precision:
    """Types of the UNet and text encoders, of the VAE, and of control models."""

    unet: torch.dtype
    vae: torch.dtype
    control: torch.dtype = torch.float32

    @classmethod
    def choose(
        cls,
        device: torch.device,
        *,
        no_half: bool,
        no_half_vae: bool,
        no_half_control: bool = False,
    ) -> "Precision":
        """float32 on a CPU; half precision on a GPU unless the flags forbid it."""
        if device.type == "cpu" or no_half:
            return cls(torch.float32, torch.float32, torch.float32)
        half, full = torch.float16, torch.float32
        return cls(half, full if no_half_vae else half, full if no_half_control else half)


def wider_vae_type(*, prefers_bfloat16: bool, allowed: bool) -> torch.dtype | None:
    """What a half-precision VAE that makes NaNs is switched to, if to anything."""
    if prefers_bfloat16:
        return torch.bfloat16
    return torch.float32 if allowed else None


@dataclass(frozen=True, slots=True)
class NanRule:
    """What becomes of NaNs that a VAE makes: an error, unless a wider number type mends them."""

    #: without it nobody looks for them
    checks: bool = True
    #: what a float16 VAE is switched to for good; None: nothing
    widen_to: torch.dtype | None = None


NANS_FAIL: Final = NanRule()
NANS_PASS: Final = NanRule(checks=False)
