"""How strong each of a model's residuals is, and on which rows (contract: controlnet-api 6)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from sdapi.engine.control.unit import ControlMode, ControlUnit
from sdapi.engine.sampling.denoising.guidance import Row
from sdapi.errors import BadRequest

#: what a residual loses against the next deeper one, and how many SD1 has
_SOFTENING, _DEEPEST = 0.825, 12
_SOFT_ADAPTER = (0.25, 0.62, 0.825, 1.0)
#: lines that would be drawn twice as sharp in a second pass
_SOFT_IN_SECOND_PASS = ("canny", "mlsd")


def control_scales(unit: ControlUnit, count: int, *, is_second_pass: bool) -> tuple[float, ...]:
    """A ControlNet's factors, from the first input block to the middle.

    A model of fewer residuals than SD1's 13 takes the first of theirs, as the reference does.
    """
    soft = tuple(_SOFTENING ** (_DEEPEST - i) for i in range(count))
    return _scales(unit, soft, is_second_pass=is_second_pass)


def adapter_scales(unit: ControlUnit, count: int, *, is_second_pass: bool) -> tuple[float, ...]:
    """A T2I-Adapter's factors, from the first level on."""
    return _scales(unit, _SOFT_ADAPTER[:count], is_second_pass=is_second_pass)


def _scales(unit: ControlUnit, soft: Sequence[float], *, is_second_pass: bool) -> tuple[float, ...]:
    if unit.advanced is not None:
        if len(unit.advanced) < len(soft):
            raise BadRequest(
                f"{unit.label}: advanced_weighting has {len(unit.advanced)} weights; "
                f"this model needs {len(soft)}"
            )
        return unit.advanced[: len(soft)]
    softens = is_second_pass and any(part in unit.module for part in _SOFT_IN_SECOND_PASS)
    if unit.mode is ControlMode.BALANCED and not softens:
        return (unit.weight,) * len(soft)
    return tuple(unit.weight * each for each in soft)


def rows_of(unit: ControlUnit, rows: Sequence[Row], *, pools: bool) -> list[int]:
    """The rows of a UNet call that a unit acts on; a model that pools never acts on unconds."""
    if unit.mode is ControlMode.CONTROL or pools:
        return [i for i, row in enumerate(rows) if not row.is_uncond]
    return list(range(len(rows)))


def over_region(residual: Tensor, region: Tensor | None) -> Tensor:
    """A residual [N, C, h, w] where its unit acts; `region` is [1, 1, H, W], 0 to 1."""
    if region is None:
        return residual
    return residual * F.interpolate(region, size=residual.shape[-2:], mode="bilinear")
