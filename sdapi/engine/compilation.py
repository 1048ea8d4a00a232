"""The UNet compiled (`--optimize near`): faster, not bit-identical.

Networks are merged into the weights in place, so another LoRA does not compile anew; another size
or batch does, once.
"""

from typing import Any

from torch import nn


def compile_unet(unet: nn.Module, backend: Any = "inductor") -> None:
    """Let calls of the UNet run compiled from now on; weights and modules stay what they are."""
    unet.compile(backend=backend)
