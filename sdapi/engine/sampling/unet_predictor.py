"""The UNet with what each row of its batch is conditioned on."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.sampling.guidance import Row
from sdapi.engine.stages import UNetCall
from sdapi.engine.text.conditioning import Cond


class UNetPredictor:
    """Calls the UNet in its own number type; latents stay float32."""

    def __init__(
        self,
        components: Components,
        image_cond: Tensor | None,
        before: Sequence[Callable[[UNetCall], None]] = (),
    ) -> None:
        self._unet = components.unet
        #: what scripts do before each call
        self._before = before
        #: further input channels of inpainting and pix2pix models [B, K, h, w]
        self._image_cond = image_cond

    def __call__(self, x: Tensor, t: Tensor, rows: Sequence[Row]) -> Tensor:
        """The UNet's output for latents `x` [N, C, h, w] at time steps `t` [N], float32."""
        dtype = self._unet.dtype
        call = UNetCall(x, t, rows)
        for stage in self._before:
            stage(call)
        x = call.x
        if self._image_cond is not None:
            x = torch.cat([x, self._pictures(self._image_cond, rows).to(x.dtype)], dim=1)
        cross = torch.stack([row.cond.cross for row in rows])
        output = self._unet(
            x.to(dtype),
            t,
            encoder_hidden_states=cross.to(x.device, dtype),
            added_cond_kwargs=_sdxl_inputs([row.cond for row in rows], x.device, dtype),
            return_dict=False,
            **call.arguments,
        )
        return output[0].float()

    @staticmethod
    def _pictures(image_cond: Tensor, rows: Sequence[Row]) -> Tensor:
        """The further channels of each row [N, K, h, w]; zeros where it may not see them."""
        seen = torch.tensor([row.sees_picture for row in rows], device=image_cond.device)
        return image_cond[[row.image for row in rows]] * seen.reshape(-1, 1, 1, 1)


def _sdxl_inputs(
    conds: list[Cond], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor] | None:
    pooled = [cond.pooled for cond in conds if cond.pooled is not None]
    sizes = [cond.sizes for cond in conds if cond.sizes is not None]
    if not pooled:
        return None
    return {
        "text_embeds": torch.stack(pooled).to(device, dtype),
        "time_ids": torch.stack(sizes).to(device, dtype),
    }
