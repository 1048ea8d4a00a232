"""The UNet compiled (`--optimize near`): faster, not bit-identical.

Networks are merged into the weights in place, so another LoRA does not compile anew; another size
or batch does, once.
"""

from collections.abc import Callable
from typing import Any

from torch import nn


def compile_unet(unet: nn.Module, backend: Any = "inductor") -> None:
    """Let calls of the UNet run compiled from now on; weights and modules stay what they are."""
    unet.compile(backend=backend)


def calling(unet: nn.Module) -> Callable[..., Any]:
    """What to call for the UNet: uncompiled while something is hooked into its inside.

    Compiled code does not notice hooks that came later. To watch for them would compile anew for
    every job with hooks, which takes longer than to draw it.
    """
    module: Any = unet  # torch has no public names for what is asked of it here
    if module._compiled_call_impl is None:
        return unet
    # Its own hooks, as an offloaded one has, were there before it was compiled.
    is_hooked = any(_is_hooked(each) for each in unet.modules() if each is not unet)
    return module._call_impl if is_hooked else unet


def _is_hooked(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
