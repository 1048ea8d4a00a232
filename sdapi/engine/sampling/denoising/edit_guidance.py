"""Guidance of instruct-pix2pix checkpoints: by the prompt, and by the picture that is edited.

Brooks, Holynski and Efros 2023, equation 3. Contract: webui-generation 7 and 10.9.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.sampling.denoising.guidance import Guidance, Guide, Inner, Stopped
from sdapi.engine.text.cond import BatchCond
from sdapi.errors import BadRequest


class EditGuide(Guide):
    """Evaluates three rows for each image: prompt and picture, picture alone, neither."""

    def __init__(
        self,
        cond: BatchCond,
        guidance: Guidance,
        monitor: Monitor,
        extra: dict[str, Any],
        *,
        image_cfg_scale: float,
    ) -> None:
        """Raises `BadRequest` for a prompt of more than one part."""
        super().__init__(cond, guidance, monitor, extra)
        if any(len(parts) != 1 for parts in cond.positive):
            raise BadRequest(
                "AND is not supported for InstructPix2Pix checkpoint "
                "(unless using Image CFG scale = 1.0)"
            )
        self._image_cfg_scale = image_cfg_scale

    def __call__(self, x: Tensor, level: float, inner: Inner) -> Tensor:
        """As `Guide`; nothing that saves work applies, and neither does a prompt's weight."""
        if self._monitor.should_stop:
            raise Stopped(self._latest)
        conds, unconds = self._pad(self._cond_rows(), self._uncond_rows())
        blind = [replace(row, sees_picture=False) for row in unconds]
        outputs = self._evaluate(x, [*conds, *unconds, *blind], inner)
        both, picture, neither = torch.stack(outputs).chunk(3)
        self.uncond = neither
        self.calls += 1
        return (
            neither
            + self._guidance.cfg_scale * (both - picture)
            + self._image_cfg_scale * (picture - neither)
        )


def make_guide(
    cond: BatchCond,
    guidance: Guidance,
    monitor: Monitor,
    extra: dict[str, Any],
    *,
    image_cfg_scale: float | None,
) -> Guide:
    """The guide of a pass; without a scale for the picture, or with 1, the ordinary one."""
    if image_cfg_scale in (None, 1.0):
        return Guide(cond, guidance, monitor, extra)
    return EditGuide(cond, guidance, monitor, extra, image_cfg_scale=image_cfg_scale)
