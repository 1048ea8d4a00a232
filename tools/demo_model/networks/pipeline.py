"""Prompts to pictures with the bare networks: what training sheets and the evaluation use."""

import torch
from diffusers import AutoencoderKL, ControlNetModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from tools.demo_model.networks.models import LATENT_CHANNELS, SCALE_FACTOR, Networks
from tools.demo_model.networks.schedule import sample_euler, sampling_sigmas
from tools.demo_model.networks.tokens import encode


def controlled(
    unet: nn.Module,
    control: nn.Module,
    noisy: Tensor,
    times: Tensor,
    context: Tensor,
    hints: Tensor,
) -> Tensor:
    """The noise that a UNet predicts when a ControlNet leads it."""
    down, middle = control(noisy, times, context, hints, return_dict=False)
    return unet(
        noisy,
        times,
        context,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample


@torch.no_grad()
def draw_pictures(
    networks: Networks,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    prompts: list[str],
    size: int,
    seed: int,
    steps: int = 20,
    cfg_scale: float = 5.0,
    start: Tensor | None = None,
    strength: float = 1.0,
    batch: int = 8,
    lead: tuple[ControlNetModel, Tensor] | None = None,
) -> Tensor:
    """Pictures [N, 3, size, size] in 0..1; noise depends on the seed and a picture's place.

    With `start` (pictures of the same form) this is img2img: the last `strength` of the steps.
    With `lead` a ControlNet leads, by its control pictures (of the same form).
    """
    device = next(networks.parameters()).device
    noise = torch.Generator().manual_seed(seed)
    shape = (len(prompts), LATENT_CHANNELS, size // 8, size // 8)
    x = torch.randn(shape, generator=noise).to(device)
    times, sigmas = sampling_sigmas(steps, str(device))
    skip = steps - round(steps * strength)
    x, times, sigmas = x * sigmas[skip], times[skip:], sigmas[skip:]
    pictures = []
    for first in range(0, len(prompts), batch):
        part = slice(first, first + batch)
        latent = x[part]
        if start is not None:
            begin = start[part].to(device) * 2.0 - 1.0
            latent = latent + vae.encode(begin).latent_dist.mean * SCALE_FACTOR
        tokens = encode(tokenizer, prompts[part] + [""] * len(latent)).to(device)
        context = networks.text_encoder(tokens).last_hidden_state
        hint = lead[1][part].to(device).repeat(2, 1, 1, 1) if lead else None

        def predict(
            scaled: Tensor, time: Tensor, context: Tensor = context, hint: Tensor | None = hint
        ) -> Tensor:
            pair = torch.cat([scaled, scaled])
            if lead is None or hint is None:
                made = networks.unet(pair, time, context).sample
            else:
                made = controlled(networks.unet, lead[0], pair, time, context, hint)
            with_prompt, without = made.chunk(2)
            return without + cfg_scale * (with_prompt - without)

        latent = sample_euler(predict, latent, times, sigmas)
        pictures.append(vae.decode(latent / SCALE_FACTOR).sample.cpu() / 2.0 + 0.5)
    return torch.cat(pictures).clamp(0.0, 1.0)
