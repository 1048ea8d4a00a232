"""The options that change the noise levels a model is drawn with (contract: webui-scripts 15)."""

from typing import Any

import torch
from torch import Tensor

from sdapi.engine.jobs.job import SamplingOptions

ZERO_TERMINAL_SNR = "Zero Terminal SNR"
#: What is left of the picture at the last step; zero would make sigma infinite.
_LAST_ALPHA = 4.8973451890853435e-08


def job_alphas(alphas: Tensor, options: SamplingOptions, extra: dict[str, Any]) -> Tensor:
    """A checkpoint's cumulative alphas [1000] as the options want them; half ones stay half.

    Rounded first, then rescaled; the rescaling of rounded ones is float32, in half precision its
    last sigma would be infinite.
    """
    if options.use_downcasted_alpha_bar:
        extra["Downcast alphas_cumprod"] = True
        alphas = alphas.half()
    if options.noise_schedule == ZERO_TERMINAL_SNR:
        extra["Noise Schedule"] = ZERO_TERMINAL_SNR
        alphas = _zero_terminal_snr(alphas.float())
    return alphas


def _zero_terminal_snr(alphas: Tensor) -> Tensor:
    """Lin et al. 2024, algorithm 1: the last step is pure noise, the first stays as it is."""
    roots = alphas.sqrt()
    first, last = roots[0], roots[-1]
    rescaled = ((roots - last) * (first / (first - last))) ** 2
    return torch.cat([rescaled[:-1], rescaled.new_tensor([_LAST_ALPHA])])
