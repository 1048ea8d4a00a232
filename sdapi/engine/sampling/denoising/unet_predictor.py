"""The UNet with what each row of its batch is conditioned on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.jobs.stages import Stages, UNetCall
from sdapi.engine.models.compilation import calling
from sdapi.engine.sampling.denoising.guidance import Row
from sdapi.engine.text.cond import Cond


class UNetPredictor:
    """Calls the UNet in its own number type; latents stay float32."""

    def __init__(
        self,
        components: Components,
        image_cond: Tensor | None,
        stages: Sequence[Stages] = (),
    ) -> None:
        self._components = components
        self._unet = components.unet
        #: what scripts do before and after each call
        self._stages = stages
        #: further input channels of inpainting and pix2pix models [B, K, h, w]
        self._image_cond = image_cond

    def __call__(self, x: Tensor, time_step: float, rows: Sequence[Row]) -> Tensor:
        """The UNet's output for latents `x` [N, C, h, w] at a time step, float32."""
        dtype = self._unet.dtype
        t = torch.full((len(rows),), time_step, device=x.device)
        call = UNetCall(x, t, time_step, rows, self._components, self._image_cond)
        for stages in self._stages:
            stages.before_denoise(call)
        x = call.x
        if call.image_cond is not None:
            x = torch.cat([x, self._pictures(call.image_cond, rows).to(x.dtype)], dim=1)
        cross = torch.stack([row.cond.cross for row in rows])
        output = calling(self._unet)(
            x.to(dtype),
            t,
            encoder_hidden_states=cross.to(x.device, dtype),
            added_cond_kwargs=sdxl_inputs([row.cond for row in rows], x.device, dtype),
            return_dict=False,
            **call.arguments,
        )
        predicted = output[0].float()
        for stages in self._stages:
            predicted = stages.after_denoise(call, predicted)
        return predicted

    @staticmethod
    def _pictures(image_cond: Tensor, rows: Sequence[Row]) -> Tensor:
        """The further channels of each row [N, K, h, w]; zeros where it may not see them."""
        seen = torch.tensor([row.sees_picture for row in rows], device=image_cond.device)
        return image_cond[[row.image for row in rows]] * seen.reshape(-1, 1, 1, 1)


def sdxl_inputs(
    conds: Sequence[Cond], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor] | None:
    """What SDXL reads beside the prompt's tokens: pooled texts and sizes; None for the others."""
    pooled = [cond.pooled for cond in conds if cond.pooled is not None]
    sizes = [cond.sizes for cond in conds if cond.sizes is not None]
    if not pooled:
        return None
    return {
        "text_embeds": torch.stack(pooled).to(device, dtype),
        "time_ids": torch.stack(sizes).to(device, dtype),
    }
