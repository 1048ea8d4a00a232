"""Hires fix: what its second pass draws over (contract: webui-generation 9)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.jobs.job import HiresPass, Job
from sdapi.engine.latents import vae
from sdapi.engine.latents.image_cond import everything_masked, masked_picture
from sdapi.engine.latents.init_latent import encode_pixels
from sdapi.engine.latents.latent_modes import LatentMode
from sdapi.engine.sampling.sampling_pass import denoiser_calls
from sdapi.engine.text.grammar.schedule import Timeline
from sdapi.images.resize import STRETCH, Upscale, resize_image

_SEED_MASK = 0x7FFFFFFFFFFFFFFF


def second_pass(job: Job, hires: HiresPass) -> Job:
    """The job as the second pass sees it: its size, texts, sampler and steps."""
    width, height = hires.size
    tiles = job.hypertile.unet.enabled or job.hypertile.unet_second_pass
    return replace(
        job,
        width=width,
        height=height,
        prompts=hires.prompts,
        negative_prompts=hires.negative_prompts,
        sampler=hires.sampler,
        scheduler=hires.scheduler,
        steps=hires.steps,
        checkpoint=hires.checkpoint,
        vae=hires.vae,
        token_merging_ratio=job.token_merging_ratio_hr,
        hypertile=replace(job.hypertile, unet=replace(job.hypertile.unet, enabled=tiles)),
        hires=None,
    )


def timeline(job: Job, second: Job) -> Timeline:
    """The second pass's prompt schedule, which goes on where the first pass's ended."""
    return Timeline(
        denoiser_calls(second, second.steps),
        first_pass_steps=denoiser_calls(job, job.steps),
        use_old_scheduling=job.options.use_old_scheduling,
    )


@dataclass(frozen=True, slots=True)
class Enlarged:
    """What the second pass starts from, [B, C, h, w], and what the UNet sees beside it."""

    latent: Tensor
    image_cond: Tensor | None


@dataclass(frozen=True, slots=True)
class Enlarger:
    """Makes the start of the second pass; `job` is as that pass sees it."""

    asked: HiresPass
    job: Job
    components: Components
    #: The reference takes the VAE's noise from torch's global stream, which its first pass's noise
    #: has seeded with the seed of the batch's last picture.
    noise: torch.Generator
    decode: Callable[[Tensor], Sequence[Image]]

    def of_latent(self, latent: Tensor) -> Enlarged:
        """Interpolate the first pass's latent."""
        mode, (width, height) = self.asked.upscaler, self.asked.size
        assert isinstance(mode, LatentMode)
        enlarged = torch.nn.functional.interpolate(
            latent,
            size=(height // 8, width // 8),
            mode=mode.interpolation,
            antialias=mode.antialias,
        )
        if self.components.is_inpainting and self.job.options.inpainting_mask_weight < 1:
            pictures = self.decode(enlarged)
            return self._cut(enlarged, self._beside(vae.to_tensor(pictures)))
        return self._cut(enlarged, self._beside(None))

    def of_pictures(self, pictures: Sequence[Image], upscale: Upscale | None) -> Enlarged:
        """Enlarge the first pass's pictures and encode them."""
        if isinstance(self.asked.upscaler, LatentMode):
            pixels = vae.to_tensor(pictures)
            return self.of_latent(encode_pixels(self.components, self.job, pixels, self.noise))
        large = [resize_image(each, STRETCH, self.asked.size, upscale) for each in pictures]
        pixels = vae.to_tensor(large)
        latent = encode_pixels(self.components, self.job, pixels, self.noise)
        # From 0 to 1, where the VAE expects -1 to 1: the reference forgets to centre these.
        return self._cut(latent, self._beside((pixels + 1) / 2))

    def _beside(self, pixels: Tensor | None) -> Tensor | None:
        """Without pixels, what they show does not matter."""
        if not self.components.is_inpainting:
            return None
        if pixels is None:
            return everything_masked(self.components, self.job, self.noise)
        mask = torch.ones(1, 1, *pixels.shape[-2:])
        return masked_picture(self.components, self.job, pixels, mask, self.noise)

    def _cut(self, latent: Tensor, beside: Tensor | None) -> Enlarged:
        surplus = self.asked.surplus
        if beside is not None:
            beside = cut(beside.expand(len(latent), -1, -1, -1).to(latent.device), surplus)
        return Enlarged(cut(latent, surplus), beside)


def encoder_noise(seed: int) -> torch.Generator:
    """The stream that torch's global one is once a picture's noise was drawn."""
    return torch.Generator().manual_seed(seed & _SEED_MASK)


def cut(cells: Tensor, surplus: tuple[int, int]) -> Tensor:
    """Cut what sticks out (x, y) off latent cells [B, C, h, w], the smaller half at the start."""
    x, y = surplus
    height, width = cells.shape[-2:]
    return cells[..., y // 2 : height - (y + 1) // 2, x // 2 : width - (x + 1) // 2]


def merge_keys(extra: dict[str, Any], second: dict[str, Any]) -> None:
    """Add the infotext keys of the second pass; its schedule has a name of its own."""
    label = second.pop("Schedule type", None)
    if label is not None and label != extra.get("Schedule type"):
        extra["Hires schedule type"] = label
    extra |= second
